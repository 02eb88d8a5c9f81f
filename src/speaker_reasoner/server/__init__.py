"""The server: OpenAI's transcription API, jobs for long recordings, and the page.

    app            routes
    documentation  OpenAPI's description of routes; schemas: of answers and errors
    guard          keys, origins and headers of requests; counts for Prometheus
    forms          fields of requests; openai: answers in the form of OpenAI's API
    failures       errors in that form
    uploads        form bodies to disk, within limits
    intake         a recording and its known voices, decoded
    sound          recordings as they are kept, and as they are played
    exports        transcripts as files to download
    worker         one engine thread that batches dialogues over connections
    runs           a recording under way, for a request; jobruns: for a job
    transcription  a request's recording, for the route that answers it
    jobs, events   jobs and their events, which outlive the server
    store          their storage: rows, database, processes (owners of jobs), documents (transcripts)
    shared         storage that several servers share: ledger, depots; claims, fleet
    places         limits of the queue; offers: models; relay: a request that another server works on
    keeper         the heartbeat: leases, outages, retention
    manager        jobs under way, and the states of the others
    transcripts    transcripts of jobs: displayed, exported, corrected, transcribed again
    corrections    corrections by users: operations, lines, edits, again
    live           sessions over a socket, while somebody speaks
    service        all of it together

Needs the extra `serve`.
"""

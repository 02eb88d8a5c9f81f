"""The server: OpenAI's transcription API, jobs for long recordings, and the page.

    app            routes
    documentation  what OpenAPI says about them; schemas: of answers, and the errors there are
    guard          who may ask, from where; headers; counts for Prometheus
    forms          what clients send; openai: what OpenAI's clients expect
    failures       what goes wrong, as they understand it
    uploads        form bodies to disk, within limits
    intake         a recording and its known voices, decoded
    sound          recordings as they are kept, and as they are played
    exports        transcripts as files to take away
    worker         one engine thread that batches dialogues over connections
    runs           a recording on its way through it, for a request; jobruns: for a job
    transcription  a request's recording, as its route sees it
    jobs, events   what outlives the server: jobs, and what was told of them
    store          where they lie: rows, database, processes (whose they are), documents (their transcripts)
    shared         where those lie that several servers share: ledger, depots; claims, fleet
    places         how many may wait; offers: for which models; relay: on another server
    keeper         the heartbeat: leases, outages, retention
    manager        jobs under way, and what becomes of the others
    transcripts    of jobs: shown, given away, corrected, heard again
    corrections    what people change in a transcript: operations, lines, edits, again
    live           sessions over a socket, while one speaks
    service        all of it together

Needs the extra `serve`.
"""

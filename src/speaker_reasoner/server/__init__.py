"""The server: OpenAI's transcription API, jobs for long recordings, and the page.

    app            routes
    documentation  what OpenAPI says about them
    guard          who may ask, from where; headers; counts for Prometheus
    openai         what OpenAI's clients send and expect, errors included
    uploads        form bodies to disk, within limits
    intake         a recording and its known voices, decoded
    sound          recordings as they are kept, and as they are played
    worker         one engine thread that batches dialogues over connections
    runs           a recording on its way through it, for a request or for a job
    transcription  a request's recording, as its route sees it
    jobs, events   what outlives the server: jobs, and what was told of them
    corrections    what people change in a transcript, as operations that can be undone
    service        all of it together

Needs the extra `serve`.
"""

"""Live audio over a socket: `/v1/realtime`, as OpenAI's transcription sessions.

route      who may have a session, and how many
session    one of them: from its socket to the engine, and back
events     what is said over it: configuration, events, errors
incoming   audio as it comes: decoded, kept, watched for pauses
cuts       where it is cut: pieces, and stretches that the model hears at once
listening  at the engine: finished stretches, and guesses at the one that is being spoken
lines      what clients are told: items, lines, what changes in them
keeping    the job that a session leaves
"""

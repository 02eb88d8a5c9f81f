"""Live audio over a socket: `/v1/realtime`, as OpenAI's transcription sessions.

route      opens sessions, and limits their number
session    one session: from its socket to the engine, and back
events     configuration, events and errors on the socket
incoming   audio as it arrives: decoded, stored, examined for pauses
cuts       pieces, and stretches that the model hears at once
listening  stretches at the engine, and guesses at the one that is being spoken
lines      items, lines and their changes, as clients get them
keeping    the job that a session becomes
"""

"""Other systems of transcription: each takes recordings and gives transcripts, or says why not.

They are no engines: they have no turns. `table` lists them, `asking` runs one over many recordings.
"""

"""An engine of ordinary components, for real speech: a recogniser's words, a diarizer's speakers.

It answers the turns of the dialogue (overview, boxes, lines) from what its components found in the chunk, so
that everything above engines works unchanged. It is also the paper's cascade row.
"""

"""Speaker diarization beside the dialogue: embeddings, clustering, linking, enrolled speakers. Knows no engine."""

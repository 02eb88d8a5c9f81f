"""Who is who: voices compared, lines grouped and linked, people with names. Knows no engine."""

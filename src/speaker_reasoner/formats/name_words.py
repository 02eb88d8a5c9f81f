"""Words that tell names from other text before a colon: what begins a sentence, what somebody is, what is a sound."""

import re

_PARTICLE_WORDS = (
    "al and bin da das de del della den der di do dos du el ibn la le of the ten ter van von y zu &"
)
PARTICLES = frozenset(_PARTICLE_WORDS.split())
FIRST_PARTICLES = frozenset(("Al", "Bin", "De", "Di", "Ibn", "Van", "Von"))
"""Particles that begin a name in capitals: `Al`, `Van Morrison`; others begin a sentence: `The`, `Das`."""
_OPENER_WORDS = (
    "Also And Answer But Caution Example Finally First Fact Given Hint However Important Listen Look"
    " Maybe No Not Note Now OK Ok Okay Or Please Question Quote Remember Result Second See So Summary"
    " Then There Therefore Third This Thus Tip Translation Update Warning Well Why Yes"
    " Achtung Also Antwort Beispiel Dann Ergebnis Frage Ganz Hinweis Ja Merke Nein Nochmal Problem Tipp"
    " Warnung Wichtig Zusammenfassung Alors Attention Bref Conseil Donc Exemple Mais Oui Non Remarque"
    " Réponse Résultat Atención Bueno Ejemplo Entonces Nota Pero Pregunta Respuesta Resultado Sí Attenzione"
    " Domanda Esempio Quindi Risposta Exemplo Pergunta Resposta Ответ Вопрос Внимание Итак Нет Да Пример"
    " Monday Tuesday Wednesday Thursday Friday Saturday Sunday Today Tomorrow"
    " 注意 问题 答案 问 答 例如 比如 结果 第一 第二 第三 首先 其次 最后 总之 因此 所以 但是 質問 回答 答え 例"
)
_HEADINGS = (
    "Breaking,Breaking news,News,Exclusive,Headlines,Weather,Sport,Sports,Coming up,Meanwhile,Previously,"
    "Tonight,Yesterday,Tomorrow,Earlier,Later,Fun fact,Pro tip,Source,Sources,Credits,Music,Lyrics,Subtitles,"
    "Subtitles by,Captions,Captions by,Disclaimer,Reminder,Spoiler,Update,Eilmeldung,Musik,Untertitel,Quelle,"
    "Quellen,Source,Musique,Sous-titres,Música,Subtítulos,Fuente,Noticias"
)
OPENERS = frozenset(_OPENER_WORDS.split()) | frozenset(_HEADINGS.split(","))
"""Words that begin a sentence or a text before a colon and are nobody's name."""
_ROLE_WORDS = (
    "man woman boy girl kid child children baby lady guy male female narrator announcer reporter anchor host"
    " hostess interviewer guest presenter moderator speaker commentator teacher professor student officer cop"
    " policeman doctor nurse judge lawyer attorney waiter waitress clerk driver pilot soldier guard captain"
    " crowd group audience chorus choir voice voiceover caller operator dispatcher singer translator interpreter"
    " mother father mom mum dad grandma grandpa daughter son brother sister wife husband robot computer"
    " mann frau junge mädchen kind sprecher sprecherin erzähler moderatorin reporterin"
    " homme femme garçon fille enfant narrateur narratrice hombre mujer niño niña narrador locutor"
    " uomo donna ragazzo ragazza narratore homem mulher menino menina"
)
ROLES = frozenset(_ROLE_WORDS.split())
"""Descriptions of people by which captions for the deaf name speakers: `MAN:`, `OLD WOMAN 2:`, `TV ANNOUNCER:`."""
TOGETHER = frozenset(
    ("ALL", "BOTH", "EVERYONE", "TOGETHER", "ALLE", "BEIDE", "TOUS", "TODOS", "TUTTI")
)
OF_A_LIST = re.compile(
    r"(?:step|chapter|part|psalm|rule|figure|week|level|lesson|section|question|answer|number|"
    r"item|point|phase|stage|act|scene|verse|tip|slide|article|episode|option|problem|example|"
    r"schritt|kapitel|teil|frage|antwort|étape|chapitre|partie|paso|capítulo|parte|ps|nb|"
    r"(?:case|day|page)(?= ))"  # alone, these are surnames
    r"(?: \d+| [ivx]+| one| two| three)?",
    re.IGNORECASE,
)
"""Numbers and headings of the parts of a talk: `Step 1: open it`."""
SOUND_WORDS = re.compile(
    r".*\b(?:music|singing|laugh(?:s|ing|ter)?|giggles?|chuckles?|sighs?|sobs?|coughs?|gasps?|"
    r"applause|clapping|cheer(?:s|ing)?|whispers?|shouts?|noises?|silence|pause|beeps?|inaudible|"
    r"crosstalk|musik|gelächter|applaus|musique|rires|applaudissements|música|risas|aplausos|musica|risate)\b.*",
    re.IGNORECASE,
)
"""Remarks in brackets that are nobody's name: `[Music] la la`."""
NEVER_FIRST = frozenset(("die", "das", "ein", "eine", "les", "une", "los", "las", "una", "uma"))

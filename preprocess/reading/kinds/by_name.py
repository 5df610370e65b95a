"""Files in a folder that are left out by their names, because they are not text.

The table has the endings of common files that are never text, so that they are not opened. Any other
file is read, and its content decides (`preprocess.reading.kinds.detector`).
"""

from collections.abc import Mapping

Kind = tuple[str, str]
"""A kind of file, in the singular and the plural."""

HIDDEN = "hidden file", "hidden files"
HIDDEN_FOLDER = "hidden folder", "hidden folders"
MARKER = "marker of a finished job", "markers of finished jobs"
WORK_FOLDER = "folder of other programs' work", "folders of other programs' work"
STAGE_FOLDER = "folder of a biloom stage", "folders of biloom stages"

_ENDINGS: Mapping[Kind, str] = {
    ("image", "images"): "png jpg jpeg gif bmp tif tiff webp svg ico heic heif avif psd eps",
    (
        "sound or video",
        "sounds and videos",
    ): "mp3 wav flac ogg oga opus m4a aac wma mid midi mp4 m4v "
    "mkv webm avi mov wmv mpg mpeg flv 3gp",
    ("PDF or DjVu document", "PDF and DjVu documents"): "pdf djvu",
    ("office document", "office documents"): "doc docx xls xlsx ppt pptx odt ods odp rtf pages",
    ("e-book", "e-books"): "epub mobi azw3",
    (
        "program",
        "programs",
    ): "exe dll dylib o a obj class jar pyc pyo pyd wasm whl apk deb rpm msi",
    (
        "archive or compressed file of a kind that is not read",
        "archives and compressed files of kinds that are not read",
    ): "7z rar cab iso dmg lz4 lzma lz lzo z sz snappy",
    (
        "array or model",
        "arrays and models",
    ): "safetensors pth ckpt onnx gguf tflite npy npz h5 hdf5 pkl pickle mat rds rda rdata",
    ("database", "databases"): "sqlite sqlite3 db mdb",
    (
        "table of a kind that is not read",
        "tables of kinds that are not read",
    ): "orc avro sas7bdat dta",
    ("font", "fonts"): "ttf otf woff woff2 eot",
    ("checksum or signature", "checksums and signatures"): "md5 sha1 sha256 sha512 crc32 sig",
    ("index of web archives", "indexes of web archives"): "cdx cdxj",
    ("incomplete copy", "incomplete copies"): "part partial crdownload tmp",
    ("link of a desktop", "links of desktops"): "lnk url webloc desktop torrent",
}
# No ending that is also the code of a language of two letters, because texts are named corpus.pt (Portuguese),
# .so, .ps or .br. The content of such files tells.
_BY_ENDING = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings.split()}
_MARKERS = ("_SUCCESS", "_metadata", "_common_metadata")
_MARKER_STARTS = ("_committed_", "_started_")
_OF_DESKTOPS = ("thumbs.db", "desktop.ini")
_WORK_FOLDERS = ("_temporary", "_work", "_delta_log", "__pycache__", "__MACOSX", "node_modules")


def kind_of_file(name: str) -> Kind | None:
    """Return the kind under which a file in a folder is left out, or None if it is to be read."""
    if name.startswith("."):
        return HIDDEN
    if name[:1] == "_" and (name in _MARKERS or name.startswith(_MARKER_STARTS)):
        return MARKER
    _, dot, ending = name.rpartition(".")
    kind = _BY_ENDING.get(ending.lower()) if dot else None
    if kind and name.lower() in _OF_DESKTOPS:
        return HIDDEN
    return kind and (f"{kind[0]} (.{ending.lower()})", f"{kind[1]} (.{ending.lower()})")


def kind_of_folder(name: str) -> Kind | None:
    """Return the kind under which a folder inside a folder is left out, or None."""
    if name.startswith("."):
        return HIDDEN_FOLDER
    return WORK_FOLDER if name in _WORK_FOLDERS else None

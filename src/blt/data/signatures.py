"""What a file is: by its name, and by the bytes that it begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blt.errors import UserError

HEAD = 512  # bytes that tell what a file is
PACKED = {
    ".gz": "gzip",
    ".zst": "Zstandard",
    ".zstd": "Zstandard",
    ".xz": "xz",
    ".bz2": "bzip2",
}
SHORT = {".tgz": ".tar", ".tbz2": ".tar", ".tbz": ".tar", ".txz": ".tar", ".tzst": ".tar"}
LINES = (".jsonl", ".ndjson", ".jsonlines")
JSON = (".json",)
PARQUET = (".parquet", ".pq")
UNPACK, FOLDER = "unpack it first", "unpack it into a folder and name that"
TABLE, WRITE = "write it as Parquet or JSON lines", "write its text into a file"
# Where, how it begins, what it is, and the way out. Only what hides its text is here: other binary
# files are bytes like any others to whoever names them.
SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "gzip", "name it NAME.gz"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard", "name it NAME.zst"),
    # What is to be skipped may come first: pzstd notes the size of the frame behind it there.
    *((0, bytes([n]) + b"\x2a\x4d\x18", "Zstandard", "name it NAME.zst") for n in range(80, 96)),
    (0, b"\xfd7zXZ\0", "xz", "name it NAME.xz"),
    (0, b"BZh", "bzip2", "name it NAME.bz2"),
    (0, b"\x04\x22\x4d\x18", "lz4", UNPACK),
    (0, b"\xff\x06\0\0sNaPpY", "Snappy", UNPACK),
    (0, b"LZIP\x01", "lzip", UNPACK),
    (0, b"\x1f\x9d", "compress", UNPACK),
    (0, b"\x89LZO\0\r\n\x1a\n", "lzop", UNPACK),
    (0, b"PK\x03\x04", "zip", FOLDER),
    (0, b"PK\x05\x06", "zip", FOLDER),
    (0, b"7z\xbc\xaf\x27\x1c", "7z", FOLDER),
    (0, b"Rar!\x1a\x07", "RAR", FOLDER),
    (257, b"ustar", "tar", FOLDER),
    (0, b"PAR1\x15", "Parquet", "name it NAME.parquet"),
    (0, b"ARROW1\0\0", "Arrow", TABLE),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5", TABLE),
    (0, b"Obj\x01", "Avro", TABLE),
    (0, b"SQLite format 3\0", "SQLite", TABLE),
    (0, b"%PDF-", "PDF", WRITE),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", WRITE),
)
BY_SUFFIX = {
    **dict.fromkeys((".lz4", ".lzma", ".lz", ".sz", ".br", ".z"), UNPACK),
    **dict.fromkeys((".zip", ".tar", ".7z", ".rar", ".jar", ".whl"), FOLDER),
    **dict.fromkeys((".arrow", ".feather", ".orc", ".avro", ".h5", ".hdf5"), TABLE),
    **dict.fromkeys((".sqlite", ".xlsx", ".xls"), TABLE),
    **dict.fromkeys((".pdf", ".docx", ".doc", ".odt", ".epub", ".pptx"), WRITE),
}
BINARY = (  # left out of folders and globs whatever they hold
    *(".a", ".bin", ".class", ".dll", ".dylib", ".exe", ".o", ".pyc", ".so"),
    *(".bmp", ".gif", ".ico", ".jpeg", ".jpg", ".png", ".ttf", ".webp", ".woff", ".woff2"),
    *(".avi", ".mkv", ".mov", ".mp3", ".mp4", ".ogg", ".wav"),
    *(".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".safetensors"),
)


class NotTextError(UserError):
    """A file whose text cannot be reached; in folders and globs it is left out.

    Attributes:
        kind: of such files, a plural.
    """

    def __init__(self, path: Path, what: str, way_out: str, kind: str) -> None:
        super().__init__(f"{path}: {what}; {way_out}")
        self.kind = kind


@dataclass(frozen=True)
class Name:
    """What the name of a file says."""

    packing: str | None  # what it is packed with
    suffix: str  # of what is inside, in small letters


def name_of(path: Path) -> Name:
    """``a.JSONL.gz`` is gzip with ``.jsonl`` inside; only the outermost packing is taken off."""
    name = path.name.lower()
    suffix = Path(name).suffix
    if suffix in SHORT:
        return Name(None, SHORT[suffix])
    if suffix in PACKED:
        return Name(PACKED[suffix], Path(Path(name).stem).suffix)
    return Name(None, suffix)


def signature(head: bytes) -> tuple[str, str] | None:
    """What begins so, if its text is packed or hidden in it, and the way out."""
    for at, begin, what, way_out in SIGNATURES:
        if head[at : at + len(begin)] == begin and (what != "bzip2" or _is_bzip2(head)):
            return what, way_out
    return None


def check_name(path: Path) -> None:
    """Refuse what cannot be read, by its name.

    Raises:
        NotTextError: an archive, a table, a document; says the way out.
    """
    name = name_of(path)
    if name.suffix in BY_SUFFIX:
        kind = f"{name.suffix} files"
        raise NotTextError(path, f"{kind} are not read", BY_SUFFIX[name.suffix], kind)
    if name.suffix in PARQUET and name.packing:
        what = f"is Parquet within {name.packing}"
        raise NotTextError(path, what, UNPACK, "packed Parquet files")
    if name.suffix in PACKED and name.packing:
        raise NotTextError(path, "is packed twice", "unpack it once", "files packed twice")


def check_head(path: Path, head: bytes) -> None:
    """Refuse what cannot be read, by the bytes that it, or what was packed, begins with.

    Raises:
        NotTextError: says what it is, and the way out.
    """
    found = signature(head)
    if found is not None:
        what, way_out = found
        inside = " inside" if name_of(path).packing else ""
        way_out = UNPACK if inside and way_out.startswith("name it") else way_out
        kind = f"files that are {what}{inside} under another name"
        raise NotTextError(path, f"is {what}{inside}, whatever its name says", way_out, kind)


def _is_bzip2(head: bytes) -> bool:
    """A plain text may begin with BZh."""
    return head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")

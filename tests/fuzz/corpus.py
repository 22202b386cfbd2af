"""Files that once gave a reader trouble, or that would if a limit were taken away, as changes to an honest file.

Each is (reader, what is replaced, by what, what the refusal says); None replaces the whole file.
"""

from __future__ import annotations

BIG = b"9" * 5000


def _loops(depth: int, count: int) -> bytes:
    """A constant, and loops in one another around another one."""
    lines = [b"zero = const() {value=0} : public[] q0 <=0.0"]
    for level in range(depth):
        outer = b"zero" if level == 0 else b"zero%d" % (level - 1)
        lines.append(b"loop%d = repeat(%s) {carried=0, count=%d} : share[] q0 <=0.0 {" % (level, outer, count))
        lines.append(b"zero%d = const() {value=0} : public[] q0 <=0.0" % level)
    lines += [b"return\n}"] * depth
    return b"\n".join(lines) + b"\n"


def _wide(shape: bytes) -> bytes:
    """A constant of some size that is never used."""
    return b"zero = const() {value=0} : public[" + shape + b"] q0 <=0.0\n"


def _unused_products(count: int) -> bytes:
    """Products of very many small matrices, each of which would be a line of source."""
    return (
        b"many = const() {value=0} : public[%d,1,1] q0 <=0.0\n"
        b"more = matmul(many, many) : public[%d,1,1] q0 <=0.0\n" % (count, count)
    )


RING, RUN, MPC, GRAPH = (f"{n} of stack: " for n in ("ring.ir", "ring.ir", "mpc.ir", "graph.ir"))
HEAD = b"ring 64\n"
CASES: tuple[tuple[str, bytes | None, bytes, str], ...] = (
    # ring programs of any size
    (RING + "party", HEAD, HEAD + _loops(1, 10**9), "loops run"),
    (RING + "inspect", HEAD, HEAD + _loops(4, 1000), "loops run"),
    (RING + "run", HEAD, HEAD + _loops(6, 1), "loops 5 deep"),
    (RING + "party", HEAD, HEAD + _loops(3000, 9), "levels of nesting"),
    (RING + "run", HEAD, HEAD + _wide(b"70000,70000"), "a size that no program has"),
    (RING + "party", HEAD, HEAD + _wide(b"0"), "a size that no program has"),
    (RING + "party", HEAD, HEAD + _unused_products(10**6), "pairs of matrices"),
    (RING + "run", b"out.weight", b"out.\\u001b[2Jweight", "control characters"),
    (RING + "inspect", b"out.weight", b"out.\\ud800weight", "control characters"),
    (RING + "run", b"shape=(4, 4)", b"shape=(" + b"7, " * 100_000 + b")", "a list is too long"),
    (RING + "run", b"value=4", b"value=" + BIG, "a number is too long"),
    (RING + "party", b"carried=1", b"carried=" + b"(" * 50_000, "levels of nesting"),
    (RING + "inspect", b'return "output"=r22', b'return "output"=r99', "does not exist"),
    (RING + "party", b'return "0"', b"\xff", "not text"),
    # graphs
    (GRAPH + "inspect", b"visibility=client", b"visibility=klient", "no visibility 'klient'"),
    (GRAPH + "inspect", b" visibility=client", b"", "has no visibility"),
    (RING + "run", b'return "output"=r22', b'return "other"=r22', "what is opened"),
    (GRAPH + "inspect", b"site=mpc", b"site=nowhere", "no site 'nowhere'"),
    (MPC + "party on spu", b"dims=(1)", b"dims=(" + b"1, " * 5000 + b")", "a list is too long"),
    # manifests
    ("manifest.json of stack: inspect", b'"ring_bits": 64', b'"ring_bits": ' + BIG, "not JSON"),
    ("manifest.json of stack: party", b'"Stack"', b'"\\u202eStack"', "architecture has control characters"),
    ("manifest.json of stack: run", b'"Stack"', b'"\\ud800"', "architecture has control characters"),
    # tables
    ("hosts.toml", b"5000", BIG, "is not TOML"),
    ("hosts.toml", b"provider.pem", b"\\u001b[2J.pem", "a certificate that cannot be"),
    ("hosts.toml", b"provider.pem", b"\\u0000", "a certificate that cannot be"),
    ("hosts.toml", b"provider.pem", b"/dev/zero", "it is not a file"),
    ("hosts.toml", b"provider.pem", b"x" * 3000, "a certificate that cannot be"),
    ("input JSON with text", b"a fine film", b"\\ud800", "the text cannot be read"),
    ("network TOML", b"100", BIG, "is not TOML"),
    ("hosts.toml", b"provider.pem", b"\\u001b[2J.pem", "a certificate that cannot be"),
    ("hosts.toml", b"provider.pem", b"\\u0000", "a certificate that cannot be"),
    ("hosts.toml", b"provider.pem", b"/dev/zero", "it is not a file"),
    ("hosts.toml", b"provider.pem", b"x" * 3000, "a certificate that cannot be"),
    ("input JSON with text", b"a fine film", b"\\ud800", "the text cannot be read"),
    ("network TOML", b"100", b"1" + b"0" * 400, "is not a number of 0 or more"),
    ("rules TOML", None, b"public = " + b"[" * 50_000, "is not TOML"),
    ("recipe.toml", b"2e-4", b"1" + b"0" * 400, "train.learning_rate has to be"),
    ("recipe.toml", None, b"#" * 2**21, "is larger than"),
    # models
    ("config.json", b'"num_hidden_layers": 1', b'"num_hidden_layers": 1000000000', "num_hidden_layers is larger"),
    ("config.json", b'"intermediate_size": 8', b'"intermediate_size": 9000000', "the config describes"),
    ("config.json", b'"vocab_size": 20', b'"num_labels": 100000000', "num_labels is larger"),
    ("model.safetensors", None, b"\xff" * 100, "cannot be read"),
    ("base checkpoint, index", b'"model.safetensors"', b'"../../etc/passwd"', "does not say which files"),
    ("base checkpoint, index", None, b"[]", "does not hold a JSON object"),
)

"""Log patterns, mined online: which lines say the same, and which words of them vary.

A line's *signature* is its words with every variable masked: what has a digit, paths, quoted text,
days and months, the name behind `user`. Signatures are hashes, so a line that is like an earlier one
costs one pass over its bytes and one look-up. A word that varies without such a mark shows by its
variety: when `variety` signatures differ in one word alone, they are one pattern and that word is a
variable (also where a masked variable has stood in its place before). The patterns they were until
then become part of it.

An id is a hash of the masked words and the message id, never of order or time: replay, another shard
and a run after a restart give the same ids. `alias` says which pattern an id has become part of.

Chosen by measure over Drain (He et al., ICWS 2017): docs/adr/0019-log-patterns.md has the table.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.checkpoint import read_arrays, write_array
from runtime.kernels import inline, kernel, subroutine

TOKENS_MAX = 64  # of a line; what is behind them is not looked at
VARIABLES_MAX = 32  # of a line that are told
VARIETY_MAX = 8
QUOTED_MAX = 200  # octets of a quoted text
# Rows of a pattern's state, int64.
PART_OF, LAST_NS, LINES, TOLD_NS = 0, 1, 2, 3
STATE = 4
# What a line says about its pattern, in `out_new`.
FIRST, WIDER, TOLD_AGAIN = 1, 2, 3  # new; took others in; not told for a day
TELL_AGAIN_NS = 86_400_000_000_000
WILD = np.uint64(0x9D39247E33776D41)  # stands for a variable


@inline
def _mix(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@inline
def _at_place(token, place):  # type: ignore[no-untyped-def]
    """Return a token's share of a signature: the sum of all shares is the signature."""
    return _mix(token + np.uint64(place + 1) * np.uint64(0x9E3779B97F4A7C15))


@inline
def _in_word(byte):  # type: ignore[no-untyped-def]
    return (
        (byte >= 97 and byte <= 122)
        or (byte >= 48 and byte <= 57)
        or (byte >= 65 and byte <= 90)
        or byte == 95
        or byte >= 128
    )


@inline
def _joins(byte):  # type: ignore[no-untyped-def]
    """Whether a byte between two word bytes belongs to the word: . - / : @ $ + \\ * # ~"""
    return (
        (byte >= 45 and byte <= 47) or byte == 58 or byte == 64 or byte == 36 or byte == 43
        or byte == 92 or byte == 42 or byte == 35 or byte == 126
    )  # fmt: skip


@subroutine
def _is_calendar(word):  # type: ignore[no-untyped-def]
    """Whether three letters, as a number, are an English day or month: Mon ... Sun, Jan ... Dec."""
    for name in (
        0x4D6F6E, 0x547565, 0x576564, 0x546875, 0x467269, 0x536174, 0x53756E,
        0x4A616E, 0x466562, 0x4D6172, 0x417072, 0x4D6179, 0x4A756E, 0x4A756C,
        0x417567, 0x536570, 0x4F6374, 0x4E6F76, 0x446563,
    ):  # fmt: skip
        if word == name:
            return True
    return False


@subroutine
def _split(b, start, end, token, token_start, token_end):  # type: ignore[no-untyped-def]
    """Split a text into tokens and return how many; a variable's token is WILD, neighbours are one."""
    count = 0
    p = start
    after_user = False
    while p < end and count < token.size:
        byte = b[p]
        if byte <= 32:
            p += 1
            continue
        wild = False
        first = p
        h = np.uint64(0x2545F4914F6CDD1D)
        word = False
        if _in_word(byte) or (byte == 47 and p + 1 < end and _in_word(b[p + 1])):
            # A path counts as a word; with a second slash it is a variable.
            word = True
            path = byte == 47
            digit = False
            slashes = 0
            dots = 0
            while p < end:
                byte = b[p]
                if byte >= 48 and byte <= 57:
                    digit = True
                elif not _in_word(byte):
                    if path:
                        if byte <= 32 or byte == 44 or byte == 59 or byte == 41 or byte == 93:
                            break
                        slashes += 1 if byte == 47 else 0
                    else:
                        # Joined only where a word goes on behind it; `1,000` too.
                        q = p
                        while q < end and _joins(b[q]):
                            q += 1
                        comma = q == p and byte == 44 and q + 1 < end
                        if comma and b[q + 1] >= 48 and b[q + 1] <= 57:
                            q += 1
                        if q == p or q >= end or not _in_word(b[q]):
                            break
                        dots += 1 if byte == 46 else 0
                        for i in range(p, q):
                            h = (h ^ np.uint64(b[i])) * np.uint64(0x100000001B3)
                        p = q
                        continue
                h = (h ^ np.uint64(byte)) * np.uint64(0x100000001B3)
                p += 1
            wild = digit or slashes > 1 or after_user
            if not wild and dots > 0 and first > start and b[first - 1] == 61:
                wild = True  # `rhost=host.example.net`
            if p - first == 3 and not wild:
                wild = _is_calendar(
                    np.int64(b[first]) << 16 | np.int64(b[first + 1]) << 8 | np.int64(b[first + 2])
                )
            after_user = False
            if not wild and b[p - 1] == 114 and p - first == 4:
                if (b[first] | 32) == 117 and b[first + 1] == 115 and b[first + 2] == 101:
                    after_user = p < end and b[p] == 32
        elif byte == 39 and (
            p == start or b[p - 1] <= 32 or b[p - 1] == 40 or b[p - 1] == 91 or b[p - 1] == 61
            or b[p - 1] == 58 or b[p - 1] == 44
        ):  # fmt: skip
            # A quoted text is a variable; an apostrophe is not the beginning of one.
            q = p + 1
            while q < end and q - p <= QUOTED_MAX and b[q] != 39:
                q += 1
            closed = q < end and b[q] == 39 and q > p + 1
            if closed and (q + 1 >= end or not _in_word(b[q + 1])):
                wild = True
                p = q + 1
            else:
                p += 1
            after_user = False
        else:
            if byte == 41 and count > 0 and p > start and b[p - 1] == 40:
                token[count] = WILD  # `()` and `(x)` are alike
                token_start[count] = p
                token_end[count] = p
                count += 1
                if count == token.size:
                    break
            p += 1
            after_user = False
        if wild:
            if count > 0 and token[count - 1] == WILD:
                token_end[count - 1] = p
                continue
            token[count] = WILD
        elif word:
            token[count] = _mix(h) | np.uint64(1)
        else:
            token[count] = np.uint64(byte) << np.uint64(1)  # a mark is even, a word odd
        token_start[count] = first
        token_end[count] = p
        count += 1
    return count


@subroutine
def _find(key, keys, values):  # type: ignore[no-untyped-def]
    """Return the value of a key in an open hash table, -1 where it is not."""
    mask = keys.size - 1
    place = np.int64(key & np.uint64(mask))
    while keys[place] != np.uint64(0):
        if keys[place] == key:
            return values[place]
        place = (place + 1) & mask
    return -1


@subroutine
def _put(key, value, keys, values):  # type: ignore[no-untyped-def]
    """Set the value of a key; return 1 where the key is new."""
    mask = keys.size - 1
    place = np.int64(key & np.uint64(mask))
    while keys[place] != np.uint64(0):
        if keys[place] == key:
            values[place] = value
            return 0
        place = (place + 1) & mask
    keys[place] = key
    values[place] = value
    return 1


@subroutine
def _candidates(key, keys):  # type: ignore[no-untyped-def]
    """Return the place of a generalisation's key in its table, making it where it is new."""
    mask = keys.size - 1
    place = np.int64(key & np.uint64(mask))
    while keys[place] != np.uint64(0) and keys[place] != key:
        place = (place + 1) & mask
    return place


@inline
def _root(row, state):  # type: ignore[no-untyped-def]
    while state[PART_OF, row] >= 0:
        row = state[PART_OF, row]
    return row


@subroutine
def _wilder(token, place, signature):  # type: ignore[no-untyped-def]
    """Return the signature with the token at `place` a variable."""
    made = signature - _at_place(token[place], place) + _at_place(WILD, place)
    return made if made != np.uint64(0) else np.uint64(1)


@kernel(
    "i8(const u1[::1], const i8[::1], const i8[::1], const u8[::1], const i8[::1], i8, i8, u8[::1],"
    " i4[::1], u8[::1], i4[:,::1], u8[::1], u8[::1], i8[:,::1], i8[::1], i8[:,::1], u8[::1], i8[::1],"
    " i8[::1], i4[::1], i4[:,::1], i4[:,::1], i4[::1], u1[::1])"
)
def mine_patterns(
    work: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    seed: NDArray[np.uint64],
    arrival_ns: NDArray[np.int64],
    first: int,
    variety: int,
    known_key: NDArray[np.uint64],
    known_row: NDArray[np.int32],
    wider_key: NDArray[np.uint64],
    wider_row: NDArray[np.int32],
    pattern_id: NDArray[np.uint64],
    wild: NDArray[np.uint64],
    state: NDArray[np.int64],
    used: NDArray[np.int64],
    joined: NDArray[np.int64],
    token: NDArray[np.uint64],
    token_start: NDArray[np.int64],
    token_end: NDArray[np.int64],
    out_row: NDArray[np.int32],
    out_start: NDArray[np.int32],
    out_size: NDArray[np.int32],
    out_variables: NDArray[np.int32],
    out_new: NDArray[np.uint8],
) -> int:
    """Find the pattern of texts `first` to M; return M, or the text at which a table is full.

    In      texts work[start : start + size]; seed uint64[M], a hash of each one's message id;
            variety: so many signatures that differ in one word are one pattern.
    Inout   known: hash table from signature to pattern row; wider: hash table from a signature with one
            more variable to the rows that have a word in its place, int32[W, 8], the first is their
            number; pattern_id uint64[P]; wild uint64[P], bit i = token i became a variable; state
            int64[4, P]; used int64[4]: rows, places taken of known,
            of wider, patterns that became part of another since the last call, whose (old row, new
            row, text) are in joined int64[3, P].
    Work    token, token_start, token_end, 64 places each.
    Out     out_row int32[M]; out_start, out_size int32[32, M], the variables, places in work relative
            to the text's start; out_variables int32[M]; out_new uint8[M], 0 or what there is to tell of
            the pattern.
    """
    for m in range(first, size.size):
        at = start[m]
        count = _split(work, at, at + size[m], token, token_start, token_end)
        signature = seed[m]
        for i in range(count):
            signature += _at_place(token[i], i)
        if signature == np.uint64(0):
            signature = np.uint64(1)
        row = _find(signature, known_key, known_row)
        out_new[m] = 0
        if row < 0:
            # The slow way, once for each signature.
            if used[1] + TOKENS_MAX >= known_key.size * 3 // 4:
                return m
            if used[0] + TOKENS_MAX >= pattern_id.size:
                return m
            words = 0
            for i in range(count):
                words += 1 if token[i] & np.uint64(1) and token[i] != WILD else 0
            # Known with one word, or two, as a variable?
            for i in range(count):
                if words > 1 and row < 0 and token[i] & np.uint64(1) and token[i] != WILD:
                    row = _find(_wilder(token, i, signature), known_key, known_row)
            if row < 0 and words > 2 and count <= 32:
                for i in range(count):
                    if row < 0 and token[i] & np.uint64(1) and token[i] != WILD:
                        once = _wilder(token, i, signature)
                        for k in range(i + 1, count):
                            if row < 0 and token[k] & np.uint64(1) and token[k] != WILD:
                                twice = _find(_wilder(token, k, once), known_key, known_row)
                                if twice >= 0 and wild[twice] != np.uint64(0):
                                    row = twice
            if row < 0:
                row = used[0]
                used[0] += 1
                pattern_id[row] = signature
                wild[row] = np.uint64(0)
                state[PART_OF, row] = -1
                state[LINES, row] = 0
                state[TOLD_NS, row] = arrival_ns[m]
                out_new[m] = FIRST
                used[1] += _put(signature, row, known_key, known_row)
                # Those that had a word where this one has a variable are part of it.
                place = _candidates(signature, wider_key)
                if wider_key[place] != np.uint64(0):
                    for k in range(1, wider_row[place, 0] + 1):
                        old = wider_row[place, k]
                        if old != row and state[PART_OF, old] < 0:
                            state[PART_OF, old] = row
                            joined[0, used[3]] = old
                            joined[1, used[3]] = row
                            joined[2, used[3]] = m
                            used[3] += 1
                            out_new[m] = WIDER
                if used[2] + TOKENS_MAX >= wider_key.size * 3 // 4:
                    wider_key[:] = 0  # what was about to show begins anew
                    used[2] = 0
                top = row
                again = words > 1
                while again:
                    again = False
                    for i in range(count):
                        if token[i] & np.uint64(1) == np.uint64(0) or token[i] == WILD:
                            continue
                        key = _wilder(token, i, signature)
                        place = _candidates(key, wider_key)
                        if wider_key[place] == np.uint64(0):
                            wider_key[place] = key
                            wider_row[place, 0] = 0
                            used[2] += 1
                        have = wider_row[place, 0]
                        seen = False
                        for k in range(1, have + 1):
                            seen |= wider_row[place, k] == top
                        if seen:
                            continue
                        if have + 1 < variety:
                            wider_row[place, have + 1] = top
                            wider_row[place, 0] = have + 1
                            continue
                        # So many differ in this word alone: it is a variable.
                        made = used[0]
                        used[0] += 1
                        pattern_id[made] = key
                        wild[made] = wild[top] | (np.uint64(1) << np.uint64(i))
                        state[PART_OF, made] = -1
                        state[LAST_NS, made] = arrival_ns[m]
                        state[LINES, made] = 0
                        state[TOLD_NS, made] = arrival_ns[m]
                        used[1] += _put(key, made, known_key, known_row)
                        for k in range(1, have + 2):
                            old = top if k > have else np.int64(wider_row[place, k])
                            if state[PART_OF, old] < 0:
                                state[PART_OF, old] = made
                                joined[0, used[3]] = old
                                joined[1, used[3]] = made
                                joined[2, used[3]] = m
                                used[3] += 1
                        out_new[m] = WIDER
                        token[i] = WILD
                        signature = key
                        top = made
                        words -= 1
                        again = words > 1 and used[0] + 2 < pattern_id.size
                        break
            else:
                used[1] += _put(signature, row, known_key, known_row)
        row = _root(row, state)
        state[LAST_NS, row] = arrival_ns[m]
        if arrival_ns[m] - state[TOLD_NS, row] > TELL_AGAIN_NS:
            state[TOLD_NS, row] = arrival_ns[m]
            out_new[m] = TOLD_AGAIN
        state[LINES, row] += 1
        out_row[m] = row
        told = 0
        extra = wild[row]
        for i in range(count):
            if told == VARIABLES_MAX:
                break
            if token[i] == WILD or (extra >> np.uint64(i)) & np.uint64(1) != np.uint64(0):
                out_start[told, m] = token_start[i] - at
                out_size[told, m] = token_end[i] - token_start[i]
                told += 1
        out_variables[m] = told
    return size.size


@kernel("i8(const u8[::1], const i4[::1], u8[::1], i4[::1])")
def put_known(
    key: NDArray[np.uint64],
    row: NDArray[np.int32],
    known_key: NDArray[np.uint64],
    known_row: NDArray[np.int32],
) -> int:
    """Put keys into an empty hash table that has room for them; return how many there are."""
    count = 0
    for i in range(key.size):
        count += _put(key[i], row[i], known_key, known_row)
    return count


class Mined:
    """What `LogPatterns.mine` found: for each text its pattern, its variables, and what is to tell."""

    __slots__ = ("joined", "new", "pattern_id", "size", "start", "variables")

    def __init__(self, texts: int) -> None:
        self.pattern_id = np.zeros(texts, np.uint64)
        self.start = np.empty((VARIABLES_MAX, texts), np.int32)
        self.size = np.empty((VARIABLES_MAX, texts), np.int32)
        self.variables = np.empty(texts, np.int32)
        self.new = np.empty(texts, np.uint8)
        # (text, id, id of the pattern it became part of with this text)
        self.joined: list[tuple[int, int, int]] = []


class LogPatterns:
    """The patterns of one stream of logs, at most `patterns_max`; the least recently used give way.

    Parameters
    ----------
    patterns_max
        Bound on memory: about 700 bytes each with its tables, allocated at once.
    variety
        So many signatures that differ in one word are one pattern, 3 to 8. Fewer take states for
        variables ("up", "down"), more leave names apart for longer.

    References
    ----------
    He, P., Zhu, J., Zheng, Z., Lyu, M. R. (2017). Drain: an online log parsing approach with fixed
    depth tree. ICWS 2017. (What it is measured against.)
    """

    def __init__(self, *, patterns_max: int = 8192, variety: int = 6) -> None:
        patterns_max = max(patterns_max, 4 * TOKENS_MAX)
        places = 1 << (4 * patterns_max - 1).bit_length()
        self._variety = min(max(variety, 2), VARIETY_MAX)
        self._known_key = np.zeros(places, np.uint64)
        self._known_row = np.zeros(places, np.int32)
        self._wider_key = np.zeros(2 * places, np.uint64)
        self._wider_row = np.zeros((2 * places, VARIETY_MAX), np.int32)
        self._id = np.zeros(patterns_max, np.uint64)
        self._wild = np.zeros(patterns_max, np.uint64)
        self._state = np.zeros((STATE, patterns_max), np.int64)
        self._used = np.zeros(4, np.int64)
        self._joined = np.zeros((3, patterns_max), np.int64)
        self._token = np.zeros(TOKENS_MAX, np.uint64)
        self._token_start = np.zeros(TOKENS_MAX, np.int64)
        self._token_end = np.zeros(TOKENS_MAX, np.int64)
        self.evicted = 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self._state[PART_OF, : self._used[0]] < 0))

    def mine(
        self,
        work: NDArray[np.uint8],
        start: NDArray[np.int64],
        size: NDArray[np.int64],
        seed: NDArray[np.uint64],
        arrival_ns: NDArray[np.int64],
    ) -> Mined:
        """Find and learn the patterns of texts, in their order. `seed` tells texts of one wording apart."""
        mined = Mined(size.size)
        row = np.empty(size.size, np.int32)
        first = 0
        while True:
            done = mine_patterns(
                work, start, size, seed, arrival_ns, first, self._variety,
                self._known_key, self._known_row, self._wider_key, self._wider_row,
                self._id, self._wild, self._state, self._used, self._joined,
                self._token, self._token_start, self._token_end,
                row, mined.start, mined.size, mined.variables, mined.new,
            )  # fmt: skip
            mined.pattern_id[first:done] = self._id[row[first:done]]
            count = int(self._used[3])
            self._used[3] = 0
            for old, new, m in self._joined[:, :count].T.tolist():
                mined.joined.append((m, int(self._id[old]), int(self._id[new])))
            if done == size.size:
                return mined
            first = done
            self._make_room()

    def _root(self, row: int) -> int:
        while self._state[PART_OF, row] >= 0:
            row = int(self._state[PART_OF, row])
        return row

    def _make_room(self) -> None:
        """Keep the half that was used last; what became part of another needs no row of its own."""
        rows = int(self._used[0])
        whole = np.flatnonzero(self._state[PART_OF, :rows] < 0)
        keep_max = self._id.size // 2
        if whole.size > keep_max:
            order = np.lexsort((whole, -self._state[LAST_NS, whole]))
            self.evicted += whole.size - keep_max
            whole = np.sort(whole[order[:keep_max]])
        place = np.full(rows, -1, np.int32)
        place[whole] = np.arange(whole.size, dtype=np.int32)
        root = np.array([self._root(row) for row in range(rows)], np.int64)
        keys = np.flatnonzero(self._known_key)
        owner = place[root[self._known_row[keys]]]
        own = self._known_key[keys] == self._id[root[self._known_row[keys]]]
        # Signatures that a pattern took in are found again the slow way: they go where they crowd.
        crowded = np.count_nonzero(owner >= 0) > self._known_key.size // 2
        stay = (owner >= 0) & (own | (not crowded))
        key, row = self._known_key[keys][stay], owner[stay]
        self._known_key[:] = 0
        self._wider_key[:] = 0
        self._used[:3] = whole.size, put_known(key, row, self._known_key, self._known_row), 0
        for array in (self._id, self._wild, self._state):
            array[..., : whole.size] = array[..., whole]
            array[..., whole.size : rows] = 0

    def snapshot(self, out: Any) -> None:
        """Write the patterns and what leads to them."""
        rows = int(self._used[0])
        write_array(out, "pattern_id", self._id[:rows])
        write_array(out, "pattern_wild", self._wild[:rows])
        write_array(out, "pattern_state", np.ascontiguousarray(self._state[:, :rows].T))
        for name, key, row in (
            ("pattern_known", self._known_key, self._known_row),
            ("pattern_wider", self._wider_key, self._wider_row),
        ):
            places = np.flatnonzero(key)
            write_array(out, f"{name}_place", places)
            write_array(out, f"{name}_key", key[places])
            write_array(out, f"{name}_row", row[places])

    def restore(self, state: Any) -> None:
        """Take them back; what was made with another `patterns_max` is left, and learned again."""
        found = read_arrays(state, "pattern_id", "pattern_wild", "pattern_state")
        known = read_arrays(state, *(f"pattern_known_{part}" for part in ("place", "key", "row")))
        wider = read_arrays(state, *(f"pattern_wider_{part}" for part in ("place", "key", "row")))
        if found is None or known is None or wider is None or len(found[0]) > self._id.size:
            return
        for (place, _, _), keys in ((known, self._known_key), (wider, self._wider_key)):
            if place.size and int(place.max()) >= keys.size:
                return
        count = len(found[0])
        self._id[:count], self._wild[:count], self._state[:, :count] = (
            found[0],
            found[1],
            found[2].T,
        )
        self._known_key[known[0]], self._known_row[known[0]] = known[1:]
        self._wider_key[wider[0]], self._wider_row[wider[0]] = wider[1:]
        self._used[:3] = count, known[0].size, wider[0].size

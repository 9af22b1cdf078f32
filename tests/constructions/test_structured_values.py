"""The structured evaluation in scalar loops: repeated values, chunks and tiles, boxes, tables."""

import math

import numpy as np
import pytest
import torch

from constructions import Layer, Transformer, structured, structured_heads, tokens
from constructions.structured_heads import attention_pattern, few_pairs, head_plans
from constructions.structured_mlp import HiddenUnits, Table
from constructions.tokens import GROUPED, OWN, SHARED, Tokens, _look_up
from constructions.weights import Head


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def kinds(*columns):
    """Of tokens with these columns, which are kept as they are."""
    H = tensor([list(column) for column in columns]).T.contiguous()
    found = Tokens.compress(H)
    assert torch.equal(found.dense(), H)
    return found.kind


# ---- tokens


def cycle(n, N):
    """0, 1, ..., n - 1, 0, 1, ..."""
    return [float(i % n) for i in range(N)]


@pytest.mark.parametrize(("N", "most"), [(2, 1), (3, 1), (40, 20), (41, 20), (511, 255), (600, 256)])
def test_values_repeat_if_there_are_half_as_many_and_no_more_than_256(N, most):
    if most > 1:
        assert kinds(cycle(most, N)) == (GROUPED,)
    assert kinds(cycle(most + 1, N)) == (OWN,)
    assert kinds([3.0] * N, cycle(most + 1, N)) == (SHARED, OWN)
    assert kinds([3.0], [4.0]) == (SHARED, SHARED)


def test_groups_are_counted_over_all_columns_that_repeat():
    """4 times 5 combinations are half of 40 tokens; 3 times 7 are more, and then both columns vary freely."""
    N, values = 40, np.random.default_rng(0).standard_normal((2, 7))

    def pairs(n, m):
        return [values[0, i % n] for i in range(N)], [values[1, i // n % m] for i in range(N)]

    assert kinds(*pairs(4, 5), [2.0] * N) == (GROUPED, GROUPED, SHARED)
    assert kinds(*pairs(3, 7), [2.0] * N) == (OWN, OWN, SHARED)


def test_values_are_looked_for_in_a_sample(monkeypatch):
    """The first tokens; what comes later and is new varies freely."""
    monkeypatch.setattr(tokens, "_SAMPLE", 10)
    for late, kind in ((9, GROUPED), (10, OWN), (29, OWN)):
        assert kinds([7.0 if i == late else i % 2 + 1.5 for i in range(30)], [3.0] * 30) == (kind, SHARED)


def test_tokens_with_nothing_repeated_are_one_group():
    found = Tokens.compress(tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert found.kind == (OWN, OWN)
    assert found.groups.shape == (1, 2)
    assert found.counts.tolist() == [3.0]
    assert found.index.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_that_are_told_apart(dtype):
    """Places of a 1 in 70 columns, signs in one column, equal columns, tiny values, zeros of either sign."""
    places = [[float(k == c) for k in range(70)] for c in range(70)] * 2
    assert Tokens.compress(torch.tensor(places, dtype=dtype)).kind == (GROUPED,) * 70
    for c in range(4):
        signs = [[1.0, 2.0, 3.0, 4.0] for _ in range(8)]
        for i in (1, 2, 5):
            signs[i][c] *= -1
        want = tuple(GROUPED if k == c else SHARED for k in range(4))
        assert Tokens.compress(torch.tensor(signs, dtype=dtype)).kind == want
    same = [[x, x] for x in (1.0, 2.0, 3.0, 7.0)] * 2
    assert Tokens.compress(torch.tensor(same, dtype=dtype)).kind == (GROUPED, GROUPED)
    tiny = [[x] for x in (1e-25, 2e-25, 3e-25)] * 2
    assert Tokens.compress(torch.tensor(tiny, dtype=dtype)).kind == (GROUPED,)
    zeros = [[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0], [-0.0, 2.0], [-0.0, 3.0], [0.0, 3.0]]
    assert Tokens.compress(torch.tensor(zeros, dtype=dtype)).kind == (SHARED, GROUPED)


def mixed(N, groups=5):
    """Columns 0 and 3 vary freely, 1 and 4 repeat, 2 and 5 are constant."""
    rng = np.random.default_rng(N)
    H = rng.uniform(0.5, 2.0, (N, 6)) * rng.choice([-1, 1], (N, 6))
    H[:, [1, 4]] = rng.uniform(0.5, 2.0, (groups, 2))[np.arange(N) % groups]
    H[:, [2, 5]] = 1.3, -0.7
    return tensor(H)


def test_what_is_read_off_tokens():
    H = mixed(23)
    found = Tokens.compress(H)
    assert found.kind == (OWN, GROUPED, SHARED, OWN, GROUPED, SHARED)
    rng = np.random.default_rng(0)
    for number in range(64):
        read = [c for c in range(6) if number >> c & 1]
        level = max((found.kind[c] for c in read), default=SHARED)
        assert found.level(read) == level
        part = H[3:11]
        columns = found.columns(read, slice(3, 11))
        assert columns.shape == (len(read), 8)
        assert all(columns[i, j] == part[j, c] for i, c in enumerate(read) for j in range(8))
        matrix = torch.zeros(2, 6, dtype=torch.float64)
        matrix[:, read] = tensor(rng.standard_normal((2, len(read))))
        projected = found.project(matrix, read, slice(3, 11))
        assert projected.shape == (2, 8)
        for r in range(2):
            for j in range(8):
                want = sum(float(matrix[r, c] * part[j, c]) for c in read)
                assert math.isclose(projected[r, j], want, rel_tol=1e-9, abs_tol=1e-12)
        rows, counts = found.distinct(read)
        assert len(rows) == len(counts) == {SHARED: 1, GROUPED: 5, OWN: 23}[level]
        expanded = []
        for row, n in zip(rows, counts, strict=True):
            expanded += [tuple(row[read].tolist())] * int(n)
        assert sorted(expanded) == sorted(tuple(h[read].tolist()) for h in H)


# ---- heads


def reading(seed, rows, *coordinates, size=0.5):
    matrix = np.zeros((rows, 6))
    matrix[:, coordinates] = size * np.random.default_rng(seed).standard_normal((rows, len(coordinates)))
    return matrix


FREE, FEW, CONSTANT = (0, 3), (1, 4), (2, 5)
SORTS = [(FREE, FEW, FEW), (FREE, FREE, FREE), (FEW, FREE, FREE), (FEW, FEW, FEW), (CONSTANT, FREE, FEW),
         (FREE, CONSTANT, CONSTANT), (FREE + FEW, FEW + CONSTANT, CONSTANT)]  # fmt: skip


def attended(activation, head, H):
    """What a head adds to each token, key by key."""
    Q, K, V = (tensor(part) for part in head[:3])
    added = []
    for h in H:
        scores = [float((Q @ h) @ (K @ other)) for other in H]
        if activation == "softmax":
            top = max(scores)
            weights = [math.exp(s - top) for s in scores]
            weights = [w / sum(weights) for w in weights]
        else:
            weights = [max(0.0, s) / len(H) for s in scores]
        added.append(sum(w * (V @ other) for w, other in zip(weights, H, strict=True)))
    return torch.stack(added)


def only(activation, *heads, W1=None, W2=None):
    W1, W2 = (np.zeros((0, 6)), np.zeros((6, 0))) if W1 is None else (W1, W2)
    return Transformer([Layer(activation, heads, W1, W2)])


@pytest.mark.parametrize("size", [0.5, 20.0])
@pytest.mark.parametrize("activation", ["softmax", "relu"])
@pytest.mark.parametrize("sort", range(len(SORTS)))
def test_heads_of_every_sort(sort, activation, size):
    """With scores of hundreds too, of which a softmax must subtract the greatest."""
    sizes = (size, size, 0.5)
    Q, K, V = (reading(10 * sort + i, 2, *SORTS[sort][i], size=sizes[i]) for i in range(3))
    head = Head(Q, K, V, np.array([0, 4]))
    H = mixed(23)
    for made in ((head,), (head, head._replace(Q=-Q, V=-V)))[: 2 if activation == "relu" else 1]:
        want = H.clone()
        for part in made:
            want[:, [0, 4]] += attended(activation, part, H)
        got = only(activation, *made)(H, "structured")
        assert (got - want).abs().max() <= 1e-11 * want.abs().max()
        assert (want - H).abs().max() > 1e-3


def test_a_pass_does_not_write_tokens_out(monkeypatch):
    """Whatever repeats, and with sign pairs too."""
    pairs = [
        part
        for i, sort in enumerate(SORTS)
        for head in (Head(*(reading(3 * i + j, 2, *c) for j, c in enumerate(sort)), np.array([0, 4])),)
        for part in (head, head._replace(Q=-head.Q, V=-head.V))
    ]
    H, W1 = mixed(23), np.concatenate([reading(9, 3, *part) for part in (FREE, FEW, (0, 2))])
    for network in (
        only("relu", *pairs),
        only("relu", *pairs[::2], W1=W1, W2=reading(1, 9, *range(6)).T),
        only("softmax", *pairs[::2], W1=W1, W2=reading(1, 9, *range(6)).T),
    ):
        want = network(H)
        dense = Tokens.dense
        monkeypatch.setattr(Tokens, "dense", lambda _: pytest.fail("the tokens are written out"))
        (*_, last) = network.states(H, "structured")
        monkeypatch.setattr(Tokens, "dense", dense)
        assert (last.tokens.dense() - want).abs().max() <= 1e-11 * want.abs().max()


CHUNK = 2**15


@pytest.mark.parametrize("N", [CHUNK, CHUNK + 1])
def test_a_column_of_a_chunk_takes_a_quarter_of_a_mebibyte(N):
    assert 8 * structured._CHUNK == 2**18
    chunks = list(structured.Evaluator(torch.zeros(N, 1))._chunks())
    assert [(part.start, part.stop) for part in chunks] == [(0, CHUNK), (CHUNK, N)][: 1 + N - CHUNK]


def test_rows_that_equal_no_group_have_the_place_of_some_group():
    """Every number but one is unlike the only group; their hashes lie on both sides of its own."""
    H = tensor(np.arange(1000.0)[:, None])
    places = _look_up(H, [0], H[500:501])
    assert places.tolist() == [0] * 1000
    assert _look_up(H, [0], H[::2])[::2].tolist() == list(range(500))


@pytest.mark.parametrize("activation", ["softmax", "relu"])
@pytest.mark.parametrize("N", [CHUNK, CHUNK + 3, 2 * CHUNK])
def test_chunks_that_are_full_and_chunks_that_are_not(N, activation):
    """Queries 1 and -1 read keys that grow from one chunk to the next, to scores of 1000."""
    rng = np.random.default_rng(N)
    H = np.stack([rng.uniform(0, 1000, N) * np.linspace(0.1, 1, N), rng.standard_normal(N), np.ones(N)]).T
    H[1::2, 2] = -1
    H = tensor(H)
    query, key, value = np.eye(3)[2:], np.eye(3)[:1], np.array([[0.0, 1.0, 0.0]])
    head = Head(query, key, value, np.array([1]))
    for heads in ((head,), (head, head._replace(Q=-query, V=-value)))[: 2 if activation == "relu" else 1]:
        layer = Layer(activation, heads, np.zeros((0, 3)), np.zeros((3, 0)))
        got = Transformer([layer])(H, "structured")[:, 1] - H[:, 1]
        for sign, rows in ((1, slice(0, None, 2)), (-1, slice(1, None, 2))):
            scores = sign * H[:, 0]
            if activation == "softmax":
                want = float(torch.softmax(scores, 0) @ H[:, 1])
            else:
                weights = scores if len(heads) == 2 else scores.clamp(min=0)
                want = float(weights @ H[:, 1]) / N
            assert (got[rows] - want).abs().max() <= 1e-9 * max(1, abs(want))


@pytest.fixture
def temporaries(monkeypatch):
    """Numbers of entries of what goes through a ReLU."""
    seen, true = [], torch.relu

    def watched(x):
        seen.append(x.numel())
        return true(x)

    monkeypatch.setattr(torch, "relu", watched)
    return seen


@pytest.mark.parametrize("tile", [3, 24, 60, 115, None])
def test_heads_and_units_that_are_evaluated_densely_in_tiles(tile, temporaries, monkeypatch):
    """A temporary is no larger than a tile, or than the scores or units of one token."""
    if tile is not None:
        monkeypatch.setattr(structured, "TILE", tile)
    N, units = 23, 30
    H = mixed(N)
    W1, W2 = reading(3, units, *FREE, *FEW), reading(4, units, *range(6)).T
    head = Head(*(reading(i, 2, *FREE, *FEW) for i in range(3)), np.array([0, 4]))
    want = H.clone()
    want[:, [0, 4]] += attended("relu", head, H)
    want += (want @ tensor(W1).T).clamp(min=0) @ tensor(W2).T
    network = only("relu", head, W1=W1, W2=W2)
    got = network(H, "structured")
    assert network.used == ("layer 1 head 1: dense", "layer 1 mlp: dense")
    assert (got - want).abs().max() <= 1e-11 * want.abs().max()
    assert sum(temporaries) == N * N + N * units
    assert max(temporaries) <= max(tile or math.inf, units)
    assert min(temporaries) > 0
    if tile is None:
        assert len(temporaries) == 2


@pytest.mark.parametrize("kind", [(FREE, OWN), (FEW, GROUPED), (CONSTANT, SHARED)])
def test_what_is_written_varies_as_what_is_read(kind):
    """Units that write to a column of each sort; the next layer reads them there."""
    read, level = kind
    W1, W2 = reading(0, 4, *read[:1], *CONSTANT), np.zeros((6, 4))
    W2[3:] = reading(1, 3, 0, 1, 2, 3)[:, :4]
    second = Layer("relu", (), reading(2, 5, 3, 4, 5), reading(3, 5, *range(6)).T)
    network = Transformer([Layer("relu", (), W1, W2), second])
    H = mixed(23)
    want, after = H, []
    for V1, V2 in ((W1, W2), (second.W1, second.W2)):
        want = want + (want @ tensor(V1).T).clamp(min=0) @ tensor(V2).T
        after.append(want)
    states = list(network.states(H, "structured"))
    assert states[1].tokens.kind == (OWN, GROUPED, SHARED, OWN, max(GROUPED, level), level)
    for state, expected in zip(states[1::2], after, strict=True):
        assert (state.tokens.dense() - expected).abs().max() <= 1e-11 * expected.abs().max()


def test_a_column_that_becomes_zero_is_shared_again():
    """Those that repeat too; one that only becomes constant is not looked at."""
    clean = np.concatenate([np.eye(6)[[0, 1]], -np.eye(6)[[0, 1]]])
    network = only("relu", W1=clean, W2=-clean.T.copy())
    (*_, last) = network.states(mixed(23), "structured")
    assert last.tokens.kind == (SHARED, SHARED, SHARED, OWN, GROUPED, SHARED)
    assert not last.tokens.dense()[:, :2].any()


def test_a_column_that_is_cleaned_and_written_holds_what_is_written():
    """2 relu(x_3) in the place of x_0, whichever comes first."""
    W1, W2 = np.zeros((3, 6)), np.zeros((6, 3))
    W1[0, 0], W1[1, 0], W1[2, 3] = 1.0, -1.0, 1.0
    W2[0] = -1.0, 1.0, 2.0
    H = mixed(23)
    for order in ([0, 1, 2], [2, 1, 0]):
        network = only("relu", W1=W1[order], W2=W2[:, order])
        got = network(H, "structured")
        assert (got[:, 0] - 2 * H[:, 3].clamp(min=0)).abs().max() <= 1e-14
        assert torch.equal(got[:, 1:], H[:, 1:])


# ---- sign pairs


def plans(*heads):
    (block,) = Transformer([Layer("relu", heads, np.zeros((0, 6)), np.zeros((6, 0)))]).blocks
    return [plan.pair for plan in head_plans(block)]


def test_a_sign_pair_may_have_zeros_of_either_sign():
    Q, K, V = (reading(i, 2, *FREE) for i in range(3))
    first = Head(Q, K, V)._replace(writes=np.array([0, 4]))
    for zero in (0.0, -0.0):
        second = first._replace(Q=np.where(Q == 0, zero, -Q), V=np.where(V == 0, zero, -V))
        assert plans(first, second) == ["first", "second"]
        second = second._replace(K=np.where(K == 0, zero, K))
        assert plans(first, second) == ["first", "second"]


def test_sign_pairs_differ_in_no_digit():
    """Entries of 1e-20 and 2e-20 are as different as 1 and 2."""
    Q, K, V = (reading(i, 2, *FREE, size=1e-20) for i in range(3))
    first = Head(Q, K, V, np.array([0, 4]))
    second = first._replace(Q=-Q, V=-V)
    assert plans(first, second) == ["first", "second"]
    for name in ("Q", "K", "V"):
        assert plans(first, second._replace(**{name: 2 * getattr(second, name)})) == [None, None]
    assert plans(first, second._replace(writes=np.array([4, 0]))) == [None, None]
    assert plans(first, first, second) in (["first", None, "second"], [None, "first", "second"])


@pytest.mark.parametrize("activation", ["softmax", "relu"])
@pytest.mark.parametrize("shift", [0.0, 800.0, -800.0])
def test_attention_weights_of_keys_with_counts(activation, shift):
    scores, counts = [[0.3, -1.1], [0.9, 0.2], [-0.4, 2.0]], [2.0, 3.0, 1.0]
    got = attention_pattern(activation, tensor(scores) + shift, tensor(counts)[:, None], 6)
    for a in range(2):
        if activation == "softmax":
            weights = [n * math.exp(s[a]) for n, s in zip(counts, scores, strict=True)]
            weights = [w / sum(weights) for w in weights]
        else:
            weights = [n * max(0.0, s[a] + shift) / 6 for n, s in zip(counts, scores, strict=True)]
        assert all(math.isclose(g, w, rel_tol=1e-9) for g, w in zip(got[:, a], weights, strict=True))


# ---- scores that are not positive


@pytest.fixture
def blocks_of_four(monkeypatch):
    monkeypatch.setattr(structured_heads, "_BLOCK", 4)


def all_pairs(query, key, value):
    """(1/N) sum_j relu(<q_i, k_j>) v_j, for columns i."""
    N = len(query[0])
    result = []
    for row in value:
        sums = []
        for i in range(N):
            scores = [sum(q[i] * k[j] for q, k in zip(query, key, strict=True)) for j in range(N)]
            sums.append(sum(max(0.0, s) * v for s, v in zip(scores, row, strict=True)) / N)
        result.append(sums)
    return result


def signed(signs, N, width=0.3):
    """Queries near e_b in block b; the b-th entry of keys in block j is near signs[b][j]."""
    rng, n = np.random.default_rng(N), len(signs)
    block = [i // 4 for i in range(N)]
    query = [[rng.uniform(0.8, 1.2) * (b == block[i]) for i in range(N)] for b in range(n)]
    key = [[signs[b][block[j]] + rng.uniform(-width, width) for j in range(N)] for b in range(n)]
    return query, key, rng.standard_normal((2, N)).tolist()


def agrees(query, key, value):
    got = few_pairs(tensor(query), tensor(key), tensor(value))
    if got is None:
        return False
    want = tensor(all_pairs(query, key, value))
    assert (got - want).abs().max() <= 1e-12 * max(1.0, float(want.abs().max()))
    return True


@pytest.mark.parametrize("N", [16, 14, 13])
def test_half_of_the_blocks_must_be_left_out(N, blocks_of_four, temporaries):
    """8 of 16 pairs of blocks with positive scores are evaluated; with 9 all of them are, elsewhere."""
    signs = [[1, -1, 1, -1], [-1, 1, 1, -1], [1, 1, -1, -1], [-1, -1, 1, 1]]
    assert agrees(*signed(signs, N))
    sizes = [4, 4, 4, N - 12]
    assert sum(temporaries) == sum(sizes[b] * sizes[j] for b in range(4) for j in range(4) if signs[b][j] > 0)
    signs[3][0] = 1
    assert few_pairs(*map(tensor, signed(signs, N))) is None
    assert agrees(*signed([[-1] * 4] * 4, N))


def test_wide_boxes_of_keys_on_one_side_of_zero(blocks_of_four):
    """Entries of -1.9 and -0.1 in turn meet queries of 1: no score is positive, and the bounds are -0.1."""
    key = [[-1.9 if j % 2 else -0.1 for j in range(16)]]
    assert agrees([[1.0] * 16], key, [[float(j) for j in range(16)]])
    assert agrees(key, [[1.0] * 16], [[float(j) for j in range(16)]])


@pytest.mark.parametrize("N", [9, 10, 16])
@pytest.mark.parametrize("last", [True, False])
def test_one_token_with_a_positive_score_is_not_lost(N, last, blocks_of_four):
    """A key of 0.1 among keys of -1, in a block of one token or at the end of one."""
    key = [-1.0] * N
    key[N - 1 if last else 4] = 0.1
    value = [float(j + 1) for j in range(N)]
    assert agrees([[1.0] * N], [key], [value])
    assert agrees([key], [[1.0] * N], [value])


def test_scores_that_are_zero_are_not_below_zero(blocks_of_four):
    zeros, ones = [[0.0] * 16], [[1.0] * 16]
    assert few_pairs(tensor(zeros), tensor(ones), tensor(ones)) is None
    assert few_pairs(tensor(ones), tensor(zeros), tensor(ones)) is None


@pytest.mark.parametrize(("extra", "bits"), [(0, 50), (1, 46), (22, 44)])
def test_scores_that_rounding_could_hide_are_evaluated(extra, bits, blocks_of_four):
    """One key of each block has a score of 2^-bits exactly, summed from small integers and that; the box
    around the block has generic ends, and rounds.  Three quarters of the queries have scores near -100."""
    rng, tiny = np.random.default_rng(extra), 2.0**-bits
    N, blocks = 480, 120
    query = [[1.0] * N] + [[float(q)] * N for q in rng.integers(1, 4, extra)]
    query.append([0.0 if i < N // 4 else 10.0 for i in range(N)])
    key = [[0.0] * N for _ in query]
    for b in range(blocks):
        tops = [float(t) for t in rng.integers(-3, 4, extra)]
        first = -sum(t * q[0] for t, q in zip(tops, query[1:-1], strict=True)) + tiny
        for j in range(4 * b, 4 * b + 4):
            low = 0.0 if j % 4 == 1 else 1.0
            key[0][j] = first - low * rng.uniform(0.5, 9)
            for row, top in zip(key[1:-1], tops, strict=True):
                row[j] = top - low * rng.uniform(0.5, 9)
            key[-1][j] = -10.0
    value = [[(1 + j % 7) / tiny for j in range(N)]]
    got = few_pairs(tensor(query), tensor(key), tensor(value))
    want = sum(1 + j % 7 for j in range(1, N, 4)) / N
    assert got is not None
    assert got[0].tolist() == [want] * (N // 4) + [0.0] * (3 * N // 4)


# ---- tables


def table(units, c=2.0):
    """Of units (w, b, a): a relu(w x + b c), c equal in all tokens."""
    W1 = tensor([[w, b] for w, b, _ in units])
    W2 = tensor([[a for _, _, a in units]])
    return Table.of(HiddenUnits(W1, W2, [0, 1], [0]), 0, tensor([9.0, c]))


def test_tables_have_a_knot_where_the_slope_changes_and_nowhere_else():
    units = [(1.0, 1.5, 0.7), (2.0, -1.0, 0.3), (-2.0, 1.0, -0.3), (3.0, -6.0, 1.1), (-0.5, 1.0, 0.9),
             (1.0, -2.0, -0.6), (-1.0, -4.0, 0.2)]  # fmt: skip
    made = table(units)
    # 0.3 relu(2 x - 2) - 0.3 relu(-2 x + 2) is a line; at 4 the slope changes by 3.3 - 0.6 + 0.45
    assert made.knots.tolist() == [-8.0, -3.0, 4.0]
    xs = [-9.0, -8.0, -5.1, -3.0, -2.0, 0.0, 1.0, 1.7, 4.0, 4.5, 100.0]
    for x, got in zip(xs, made(tensor(xs))[0], strict=True):
        want = sum(a * max(0.0, w * x + 2 * b) for w, b, a in units)
        assert math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-12)


def test_units_of_one_coordinate_where_all_else_is_shared():
    """So that there is one group of tokens, with the biases."""
    H = mixed(23)
    H[:, [1, 3, 4]] = tensor([0.4, 1.2, -0.9])
    W1, W2 = reading(0, 5, 0, 2, 5), reading(1, 5, *range(6)).T
    network = only("relu", W1=W1, W2=W2)
    want = H + (H @ tensor(W1).T).clamp(min=0) @ tensor(W2).T
    assert (network(H, "structured") - want).abs().max() <= 1e-12
    assert network.used == ("layer 1 mlp: one-coordinate units",)


def test_tables_of_minus_x():
    assert table([(1.0, 0.0, -1.0), (-1.0, 0.0, 1.0)]).negates
    assert table([(4.0, 3.0, -0.25), (-4.0, -3.0, 0.25), (1.0, 1.0, 1.0), (1.0, 1.0, -1.0)]).negates is False
    assert table([(1.0, 1.0, 1.0), (1.0, 1.0, -1.0), (2.0, 0.0, -0.5), (-2.0, 0.0, 0.5)]).negates
    for units in (
        [(1.0, 0.0, 1.0), (-1.0, 0.0, -1.0)],
        [(1.0, 0.0, -2.0), (-1.0, 0.0, 2.0)],
        [(1.0, 0.0, -1.0), (-1.0, 0.0, 1.0), (1.0, 3.0, 0.5)],
        [(1.0, 3.0, -1.0), (-1.0, -3.0, 1.0)],
    ):
        assert not table(units).negates


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_of_small_whole_numbers_are_told_apart(dtype):
    """All signs of eight coordinates, and pairs that sums of multiples would confuse."""
    signs = torch.tensor([[1.0 - 2 * (n >> b & 1) for b in range(8)] for n in range(256)], dtype=dtype)
    tokens = Tokens.compress(signs.repeat(3, 1))
    assert set(tokens.kind) == {GROUPED}
    assert len(tokens.groups) == 256
    for pair in (([1, 0, 0, 1], [0, 1, 1, 0]), ([1, 1], [-1, -1]), ([8, 1], [1, 2])):
        rows = torch.tensor(pair, dtype=dtype)
        tokens = Tokens.compress(rows.repeat(8, 1))
        assert set(tokens.kind) == {GROUPED}
        assert torch.equal(tokens.dense(), rows.repeat(8, 1))

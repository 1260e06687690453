"""The cases of a cube: closed loops, and what makes two cubes agree."""

from __future__ import annotations

from scene4d.cubes import EDGES, FACES, edge_between, is_ambiguous, loops, pinched_face


def crossed(case: int) -> set[int]:
    return {
        edge
        for edge, (corner, axis) in enumerate(EDGES)
        if (case >> corner & 1) != (case >> (corner | 1 << axis) & 1)
    }


def test_each_crossed_edge_is_in_one_loop() -> None:
    for case in range(256):
        for joined in (None, *range(6)):
            found = [edge for loop in loops(case, joined) for edge in loop]
            assert len(found) == len(set(found)) and set(found) == crossed(case)
            assert all(len(loop) >= 3 for loop in loops(case, joined))


def test_turned_inside_out_loops_of_unambiguous_cases_run_backward() -> None:
    turned = 0
    for case in range(256):
        if any(is_ambiguous(case, face) for face in range(6)):
            continue
        turned += 1
        forward, backward = (
            {pair for ring in loops(c) for pair in zip(ring, [*ring[1:], ring[0]], strict=True)}
            for c in (case, 255 - case)
        )
        assert forward == {(b, a) for a, b in backward}
    assert turned > 100


def test_joining_a_pinched_face_takes_its_loop_apart() -> None:
    """Wenger's cases 16 and 19: 12 and 24 of the 256."""
    pinched = {case: pinched_face(case) for case in range(256)}
    pinched = {case: face for case, face in pinched.items() if face is not None}
    assert len(pinched) == 36
    for case, face in pinched.items():
        around = FACES[face]
        edges = {edge_between(around[k - 1], around[k]) for k in range(4)}
        assert any(edges <= set(loop) for loop in loops(case))
        assert len(loops(case, face)) == len(loops(case)) + 1
        assert not any(edges <= set(loop) for loop in loops(case, face))

"""What a machine is taken for."""

from valleys.costs.machine import BF16_GAIN, bf16_gain


def test_a_cpu_says_whether_it_has_instructions_for_bf16(tmp_path):
    for text, gain in (
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16\n", BF16_GAIN),
        ("processor : 0\nFeatures\t: fp asimd bf16\n", BF16_GAIN),
        ("processor : 0\nflags\t\t: fpu avx2 avx512f\n", 1.0),
        ("", 1.0),
    ):
        path = tmp_path / f"cpuinfo-{len(text)}"
        path.write_text(text)
        assert bf16_gain(str(path)) == gain, text
    assert bf16_gain(str(tmp_path / "none")) == 1.0

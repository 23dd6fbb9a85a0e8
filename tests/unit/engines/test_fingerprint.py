from pathlib import Path

from vidmill.engines.fingerprint import fingerprint


def test_equal_folders_have_equal_fingerprints(sound_folder: Path, folder: Path) -> None:
    assert fingerprint(sound_folder) == fingerprint(folder)
    assert len(fingerprint(folder)["sha256"]) == 64


def test_one_changed_bit_of_one_weight_changes_it(sound_folder: Path, folder: Path) -> None:
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    assert fingerprint(sound_folder) != fingerprint(folder)


def test_exchanged_experts_change_it(sound_folder: Path, folder: Path) -> None:
    (folder / "transformer").rename(folder / "swap")
    (folder / "transformer_2").rename(folder / "transformer")
    (folder / "swap").rename(folder / "transformer_2")
    assert fingerprint(sound_folder) != fingerprint(folder)


def test_of_a_large_folder_only_headers_are_hashed_and_the_key_says_so(folder: Path) -> None:
    before = fingerprint(folder, hash_all_below_bytes=0)
    assert list(before) == ["sha256_headers"]
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    assert fingerprint(folder, hash_all_below_bytes=0) == before
    raw[20] ^= 1
    file.write_bytes(raw)
    assert fingerprint(folder, hash_all_below_bytes=0) != before

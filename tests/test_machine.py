"""The record of the machine that a measurement ran on, and its description in words."""

from __future__ import annotations

import platform

import pytest
import torch

from mixdet.machine import describe, instructions, machine_record


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64")
    or not hasattr(torch.cpu, "get_capabilities"),  # older versions lack this function
    reason="compares what Linux and torch report about an x86 processor",
)
def test_instructions_are_those_that_torch_reports():
    capabilities = torch.cpu.get_capabilities()
    for name, flag in {"AVX2": "avx2", "AVX-512": "avx512_f", "bfloat16": "avx512_bf16"}.items():
        assert (name in instructions()) == capabilities[flag], name


def test_the_description_names_instructions_if_the_record_has_them():
    record = machine_record()
    record["instructions"] = ["AVX2", "VNNI"]
    assert describe(record).startswith(f"{record['processor']} with AVX2, VNNI, ")
    record["instructions"] = []
    assert describe(record).startswith(f"{record['processor']}, {record['cores']} cores")

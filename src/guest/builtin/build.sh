#!/bin/sh
# Builds the built-in guest: build.sh [OUT]   (default: ../builtin.elf)
# The same gcc gives the same bytes: no build id, no paths, no dates.
set -eu
out=$(realpath -m "${1:-$(dirname "$0")/../builtin.elf}")
cd "$(dirname "$0")"
exec "${CC:-gcc}" -m32 -march=i686 -std=c11 -O2 -Wall -Wextra -Werror -ffreestanding -nostdlib \
  -static -no-pie -fno-pic -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
  -fno-strict-aliasing -fno-tree-loop-distribute-patterns -fno-tree-vectorize -mgeneral-regs-only \
  -fno-toplevel-reorder -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,max-page-size=4096 \
  -Wl,--no-warn-rwx-segments -Wl,-n -Wl,-T,link.ld -s \
  -o "$out" cpu.c main.c memory.c ne2k.c net.c options.c serial.c service.c

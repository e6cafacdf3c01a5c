/* The command line, and the memory there is. */
#include "guest.h"

struct options options = {10, 256, SPARSE, 0, 0x0A4D0002, 24, 0, 0, 0};
extern u8 guest_end[];

/* The value of `key` (with its `=`) at the start of a word, or 0. */
static const char *find(const char *text, const char *key) {
  for (int at_start = 1; *text; at_start = *text++ == ' ') {
    const char *a = text, *b = key;
    while (at_start && *b && *a == *b) a++, b++;
    if (!*b) return a;
  }
  return 0;
}

static int is_word(const char *text, const char *word) {
  while (*word && *text == *word) text++, word++;
  return !*word && (!*text || *text == ' ');
}

static const char *number(const char *text, u32 *out) {
  u32 value = 0;
  while (*text >= '0' && *text <= '9') {
    u32 digit = (u32)(*text++ - '0');
    value = value > 429496728u ? 0xFFFFFFFFu : value * 10 + digit;
  }
  *out = value;
  return text;
}

/* The end of the RAM that holds the guest: of the memory map, else of mem_upper. */
static u32 memory_end(const u32 *info) {
  if (info[0] & 0x40) {
    const u8 *entry = (const u8 *)info[12], *end = entry + info[11];
    for (; entry < end; entry += *(const u32 *)entry + 4) {
      const u32 *e = (const u32 *)entry;
      u64 from = e[1] | (u64)e[2] << 32, to = from + (e[3] | (u64)e[4] << 32);
      if (e[5] == 1 && from <= 0x100000 && to > 0x100000)
        return to > 0xC0000000u ? 0xC0000000u : (u32)to;
    }
  }
  return info[0] & 1 ? (info[2] + 1024) * 1024 : 4u << 20;
}

void options_read(const char *cmdline, const u32 *multiboot) {
  const char *at;
  if ((at = find(cmdline, "tick="))) number(at, &options.tick_ms);
  if (options.tick_ms < 1) options.tick_ms = 1;
  if (options.tick_ms > 60000) options.tick_ms = 60000;
  if ((at = find(cmdline, "dirty="))) {
    if (is_word(at, "all")) options.dirty_pages = 0xFFFFFFFFu;
    else number(at, &options.dirty_pages);
  }
  if ((at = find(cmdline, "load="))) options.spin = (u32)is_word(at, "spin");
  if ((at = find(cmdline, "pattern="))) {
    static const char *const names[] = {"sparse", "full", "random", "zero"};
    for (u32 i = 0; i < 4; i++)
      if (is_word(at, names[i])) options.pattern = i;
  }
  if ((at = find(cmdline, "ip="))) {
    options.ip = 0;
    for (int i = 0; i < 4; i++) {
      u32 part;
      at = number(at, &part);
      options.ip = options.ip << 8 | (part & 255);
      if (*at == '.') at++;
    }
    if (*at == '/') number(at + 1, &options.prefix);
  }
  u32 end = memory_end(multiboot);
  options.memory_kib = end / 1024;
  options.heap = ((u32)guest_end + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
  options.pages = end > options.heap ? (end - options.heap) / PAGE_BYTES : 0;
  if (options.dirty_pages > options.pages) options.dirty_pages = options.pages;
}

/*
 * Memory that proves itself. Each tick dirties the same pages; what a page holds after a tick is a
 * function of the tick and the page alone, so that the next tick can check every one of them.
 */
#include "guest.h"

#define SPARSE_WORDS 8u
#define FAULT_LINES 4u
extern u32 guest_start[], guest_data[];
static u32 code_sum, faults;

static u32 mix(u32 x) {
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  return x ^ x >> 16;
}
static u32 seed_of(u32 tick, u32 page) { return mix(tick * 0x9E3779B9u + mix(page + 1)); }
static u32 *page_at(u32 page) { return (u32 *)(options.heap + page * PAGE_BYTES); }

static void fault(u32 tick, const void *address, u32 want, u32 got) {
  if (++faults > FAULT_LINES) return;
  put_text("FAULT n=");
  put_dec(tick);
  put_text(" address=");
  put_hex((u32)address, 8);
  put_text(" want=");
  put_hex(want, 8);
  put_text(" got=");
  put_hex(got, 8);
  put_char('\n');
}

/* One word of a pattern: written, compared (the difference is returned), or reported if damaged. */
enum use { WRITE, COMPARE, REPORT };
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE u32 use_word(enum use use, u32 tick, u32 *word, u32 value) {
  if (use == WRITE) *word = value;
  else if (use == COMPARE) return *word ^ value;
  else if (*word != value) fault(tick, word, value, *word);
  return 0;
}

/* The one definition of what a page holds after a tick; returns 0 if nothing differs. */
ALWAYS_INLINE u32 use_page(enum use use, u32 tick, u32 page) {
  u32 *words = page_at(page), x = seed_of(tick, page), diff = 0, at = x % PAGE_WORDS;
  switch (options.pattern) {
  case SPARSE:
    for (u32 i = 0; i < SPARSE_WORDS; i++)
      diff |= use_word(use, tick, &words[i * 128 + (x >> i & 127)], x + i);
    break;
  case FULL:
    for (u32 i = 0; i < PAGE_WORDS; i++) diff |= use_word(use, tick, &words[i], x + i);
    break;
  case RANDOM:
    for (u32 i = 0; i < PAGE_WORDS; i++) {
      x = x * 1664525u + 1013904223u;
      diff |= use_word(use, tick, &words[i], x);
    }
    break;
  default: /* ZERO: clears one half of the pages and marks the other with a word, in turns */
    if ((tick + page) & 1) {
      diff |= use_word(use, tick, &words[at], x | 1);
      if (use == WRITE) break;
    }
    for (u32 i = 0; i < PAGE_WORDS; i++)
      if (!((tick + page) & 1) || i != at) diff |= use_word(use, tick, &words[i], 0);
  }
  return diff;
}
static void write_page(u32 tick, u32 page) { use_page(WRITE, tick, page); }
static u32 compare_page(u32 tick, u32 page) { return use_page(COMPARE, tick, page); }
static void report_page(u32 tick, u32 page) { use_page(REPORT, tick, page); }

/* The guest's own code, which nothing may change. */
static u32 sum_of_code(void) {
  u32 sum = 0;
  for (const u32 *word = guest_start; word < guest_data; word++) sum = (sum << 1 | sum >> 31) ^ *word;
  return sum;
}

/* Clears what the firmware left, where the pattern counts on zeros. */
void memory_init(void) {
  code_sum = sum_of_code();
  if (options.pattern != ZERO) return;
  for (u32 page = 0; page < options.dirty_pages; page++)
    for (u32 i = 0; i < PAGE_WORDS; i++) page_at(page)[i] = 0;
}

void memory_verify(u32 tick) {
  u32 sum = sum_of_code();
  faults = 0;
  if (sum != code_sum) fault(tick, guest_start, code_sum, sum);
  for (u32 page = 0; tick > 1 && page < options.dirty_pages; page++) {
    if (compare_page(tick - 1, page)) report_page(tick - 1, page);
    if ((page & 63) == 63) net_poll();
  }
  if (faults <= FAULT_LINES) return;
  put_text("FAULT n=");
  put_dec(tick);
  put_text(" words=");
  put_dec(faults);
  put_char('\n');
}

void memory_dirty(u32 tick) {
  for (u32 page = 0; page < options.dirty_pages; page++) {
    write_page(tick, page);
    if ((page & 63) == 63) net_poll();
  }
}

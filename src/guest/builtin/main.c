/*
 * The built-in guest: a freestanding multiboot program whose every output can be checked from
 * outside. One line a tick on COM1; a UDP service that counts; memory that verifies itself.
 */
#include "guest.h"

static u32 sum, work_units, work_state = 1;

/* FNV-1a over the sum so far and this tick, so that one line vouches for all before it. */
static void chain(u32 value) {
  for (int shift = 0; shift < 32; shift += 8) sum = (sum ^ (value >> shift & 255)) * 16777619u;
}

static void tick(u32 n) {
  memory_verify(n);
  memory_dirty(n);
  u32 t = now_ms();
  chain(n);
  chain(t);
  put_text("tick n=");
  put_dec(n);
  put_text(" t=");
  put_dec(t);
  put_text(" sum=");
  put_hex(sum, 8);
  if (options.spin) {
    put_text(" work=");
    put_dec(work_units);
  }
  put_char('\n');
}

static void work(void) {
  u32 x = work_state;
  for (u32 i = 0; i < 4096; i++) x = x * 1664525u + 1013904223u;
  work_state = x;
  work_units++;
}

void guest_main(u32 magic, const u32 *multiboot) {
  const char *cmdline = magic == 0x2BADB002 && (multiboot[0] & 4) ? (const char *)multiboot[4] : "";
  options_read(cmdline, multiboot);
  serial_init();
  memory_init();
  put_text("mirror guest up mem=");
  put_dec(options.memory_kib);
  put_text(" ip=");
  put_ip(options.ip);
  put_char('/');
  put_dec(options.prefix);
  put_char('\n');
  u32 parts = (options.tick_ms + 9) / 10, period_us = options.tick_ms * 1000u / parts;
  cpu_init(period_us);
  net_init();
  u32 start = now_ms();
  for (u32 n = 1;;) {
    net_poll();
    serial_poll();
    if (now_ms() - start >= n * options.tick_ms) tick(n++);
    else if (options.spin) work();
    else wait_for_irq();
  }
}

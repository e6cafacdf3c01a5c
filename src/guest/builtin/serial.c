/* COM1: what the guest says, and the lines that it is told. */
#include "guest.h"

#define COM1 0x3F8
static char line[120];
static u32 line_bytes;

void serial_init(void) {
  static const u8 setup[][2] = {{1, 0}, {3, 0x80}, {0, 1}, {1, 0}, {3, 3}, {2, 0xC7}, {4, 0x0B}};
  for (u32 i = 0; i < sizeof setup / 2; i++) outb((u16)(COM1 + setup[i][0]), setup[i][1]);
}

void put_char(char c) {
  while (!(inb(COM1 + 5) & 0x20)) {
  }
  outb(COM1, (u8)c);
}
void put_text(const char *text) {
  while (*text) put_char(*text++);
}
void put_hex(u32 value, int digits) {
  while (digits--) put_char("0123456789abcdef"[value >> (4 * digits) & 15]);
}
void put_dec(u32 value) {
  char digits[10];
  int count = 0;
  do digits[count++] = (char)('0' + value % 10);
  while (value /= 10);
  while (count) put_char(digits[--count]);
}
void put_ip(u32 ip) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    put_dec(ip >> shift & 255);
    if (shift) put_char('.');
  }
}

void power_off(void) {
  put_text("bye\n");
  while (!(inb(COM1 + 5) & 0x40)) {
  }
  outw(0x604, 0x2000);
  for (;;) __asm__ volatile("cli; hlt");
}

static void on_line(void) {
  const char *word = "poweroff", *at = line;
  while (*word && *word == *at) word++, at++;
  if (!*word && !*at) power_off();
  put_text("echo ");
  put_text(line);
  put_char('\n');
}

void serial_poll(void) {
  while (inb(COM1 + 5) & 1) {
    char c = (char)inb(COM1);
    if (c == '\r' || c == '\n') {
      line[line_bytes] = 0;
      if (line_bytes) on_line();
      line_bytes = 0;
    } else if (line_bytes < sizeof line - 1) {
      line[line_bytes++] = c;
    }
  }
}

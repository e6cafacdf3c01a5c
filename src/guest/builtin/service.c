/*
 * The counter service. `INC <client> <seq>` -> `<client> <seq> <value>`, where value counts the INCs
 * of that client; the last seq again gets the same answer, an older one `STALE <client> <seq>`.
 * `GET <client>` -> `<client> <last seq> <value>`. What it cannot do is answered `ERR <why>`.
 */
#include "guest.h"

#define CLIENTS 256
static struct {
  u32 id, seq, value;
} clients[CLIENTS];
static u32 client_count;

static u8 *out;
static void say_text(const char *text) {
  while (*text) *out++ = (u8)*text++;
}
static void say_number(u32 value) {
  u8 digits[10];
  int count = 0;
  do digits[count++] = (u8)('0' + value % 10);
  while (value /= 10);
  while (count) *out++ = digits[--count];
}
static void say(u32 a, u32 b) {
  say_number(a);
  *out++ = ' ';
  say_number(b);
}

/* Reads ` <number>` at *at; 0 if there is none or it does not fit. */
static int take_number(const u8 **at, const u8 *end, u32 *number) {
  const u8 *c = *at;
  u32 value = 0, digits = 0;
  if (c >= end || *c++ != ' ') return 0;
  for (; c < end && *c >= '0' && *c <= '9'; c++, digits++) {
    u32 digit = (u32)(*c - '0');
    if (value > 429496729u || (value == 429496729u && digit > 5)) return 0;
    value = value * 10 + digit;
  }
  *at = c;
  *number = value;
  return digits > 0;
}

static int take_word(const u8 **at, const u8 *end, const char *word) {
  const u8 *c = *at;
  while (*word && c < end && *c == (u8)*word) c++, word++;
  if (*word) return 0;
  *at = c;
  return 1;
}

static u32 find(u32 id) {
  u32 i = 0;
  while (i < client_count && clients[i].id != id) i++;
  return i;
}

static void increment(u32 id, u32 seq) {
  u32 i = find(id);
  if (seq == 0) return say_text("ERR seq");
  if (i == CLIENTS) return say_text("ERR clients");
  if (i == client_count) clients[client_count++].id = id;
  if (seq < clients[i].seq) {
    say_text("STALE ");
    return say(id, seq);
  }
  if (seq > clients[i].seq) {
    clients[i].seq = seq;
    clients[i].value++;
  }
  say(id, seq);
  *out++ = ' ';
  say_number(clients[i].value);
}

static void get(u32 id) {
  u32 i = find(id), known = i < client_count;
  say(id, known ? clients[i].seq : 0);
  *out++ = ' ';
  say_number(known ? clients[i].value : 0);
}

u32 service_answer(const u8 *at, u32 bytes, u8 *answer) {
  const u8 *end = at + bytes;
  u32 id, seq;
  out = answer;
  while (end > at && (end[-1] == '\n' || end[-1] == '\r')) end--;
  if (take_word(&at, end, "INC")) {
    if (take_number(&at, end, &id) && take_number(&at, end, &seq) && at == end) increment(id, seq);
    else say_text("ERR usage: INC <client> <seq>");
  } else if (take_word(&at, end, "GET")) {
    if (take_number(&at, end, &id) && at == end) get(id);
    else say_text("ERR usage: GET <client>");
  } else if (take_word(&at, end, "PUT") || take_word(&at, end, "READ")) {
    say_text("ERR no disk");
  } else {
    say_text("ERR what?");
  }
  return (u32)(out - answer);
}

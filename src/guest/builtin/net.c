/* ARP, ICMP echo, and UDP port 7007, each answered to whoever asked. */
#include "guest.h"

#define PORT 7007
#define FRAME_BYTES 1520u
static u8 mac[6], frame[FRAME_BYTES];
static int up;

static u16 get16(const u8 *at) { return (u16)(at[0] << 8 | at[1]); }
static u32 get32(const u8 *at) { return (u32)get16(at) << 16 | get16(at + 2); }
static void put16(u8 *at, u32 value) {
  at[0] = (u8)(value >> 8);
  at[1] = (u8)value;
}
static void put32(u8 *at, u32 value) {
  put16(at, value >> 16);
  put16(at + 2, value);
}
static void copy(u8 *to, const u8 *from, u32 bytes) {
  while (bytes--) *to++ = *from++;
}

static u32 checksum(const u8 *at, u32 bytes, u32 sum) {
  for (u32 i = 0; i + 1 < bytes; i += 2) sum += get16(at + i);
  if (bytes & 1) sum += (u32)at[bytes - 1] << 8;
  while (sum >> 16) sum = (sum & 0xFFFF) + (sum >> 16);
  return sum ^ 0xFFFF;
}
static u32 udp_pseudo(const u8 *ip, u32 udp_bytes) {
  u32 sum = 17 + udp_bytes;
  for (u32 i = 12; i < 20; i += 2) sum += get16(ip + i);
  return sum;
}

/* Says who has our address: asked by a request, or to all (`to` broadcast) at the start. */
static void send_arp(u32 operation, const u8 *to, u32 to_ip) {
  u8 arp[42];
  copy(arp, to, 6);
  copy(arp + 6, mac, 6);
  put16(arp + 12, 0x0806);
  put32(arp + 14, 0x00010800);
  put16(arp + 18, 0x0604);
  put16(arp + 20, operation);
  copy(arp + 22, mac, 6);
  put32(arp + 28, options.ip);
  copy(arp + 32, to, 6);
  put32(arp + 38, to_ip);
  nic_send(arp, sizeof arp);
}

void net_init(void) {
  static const u8 all[6] = {255, 255, 255, 255, 255, 255};
  up = nic_init(mac);
  if (up) send_arp(1, all, options.ip);
}

static void on_arp(u32 bytes) {
  if (bytes < 42 || get32(frame + 14) != 0x00010800 || get32(frame + 18) != 0x06040001) return;
  if (get32(frame + 38) != options.ip) return;
  u8 sender[6];
  copy(sender, frame + 22, 6);
  send_arp(2, sender, get32(frame + 28));
}

/* Turns the IPv4 packet in `frame` round and sends it with `payload` bytes after its header. */
static void reply_ip(u32 payload) {
  u8 *ip = frame + 14;
  copy(frame, frame + 6, 6);
  copy(frame + 6, mac, 6);
  put16(ip + 2, 20 + payload);
  put32(ip + 4, 0x00004000);
  ip[8] = 64;
  put16(ip + 10, 0);
  copy(ip + 16, ip + 12, 4);
  put32(ip + 12, options.ip);
  put16(ip + 10, checksum(ip, 20, 0));
  nic_send(frame, 34 + payload);
}

static void on_icmp(u8 *icmp, u32 bytes) {
  if (bytes < 8 || icmp[0] != 8 || checksum(icmp, bytes, 0)) return;
  icmp[0] = 0;
  put16(icmp + 2, 0);
  put16(icmp + 2, checksum(icmp, bytes, 0));
  reply_ip(bytes);
}

static void on_udp(u8 *udp, u32 bytes) {
  u8 *ip = frame + 14, answer[ANSWER_BYTES];
  u32 length = get16(udp + 4);
  if (bytes < 8 || length < 8 || length > bytes || get16(udp + 2) != PORT) return;
  if (get16(udp + 6) && checksum(udp, length, udp_pseudo(ip, length))) return;
  u32 answered = service_answer(udp + 8, length - 8, answer);
  copy(udp + 8, answer, answered);
  length = 8 + answered;
  copy(udp + 2, udp, 2);
  put16(udp, PORT);
  put16(udp + 4, length);
  put16(udp + 6, 0);
  copy(ip + 16, ip + 12, 4);
  put32(ip + 12, options.ip);
  u32 sum = checksum(udp, length, udp_pseudo(ip, length));
  put16(udp + 6, sum ? sum : 0xFFFF);
  copy(ip + 12, ip + 16, 4);
  reply_ip(length);
}

static void on_ip(u32 bytes) {
  u8 *ip = frame + 14;
  if (bytes < 34 || ip[0] != 0x45 || checksum(ip, 20, 0)) return;
  u32 total = get16(ip + 2);
  if (total < 20 || total > bytes - 14 || (get16(ip + 6) & 0x3FFF)) return;
  if (get32(ip + 16) != options.ip) return;
  if (ip[9] == 1) on_icmp(ip + 20, total - 20);
  if (ip[9] == 17) on_udp(ip + 20, total - 20);
}

void net_poll(void) {
  if (!up || !net_irq) return;
  net_irq = 0;
  u32 bytes;
  while ((bytes = nic_receive(frame, FRAME_BYTES))) {
    if (get16(frame + 12) == 0x0806) on_arp(bytes);
    if (get16(frame + 12) == 0x0800) on_ip(bytes);
  }
}

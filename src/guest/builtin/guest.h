/* What the parts of the built-in guest share: port I/O, time, serial, memory, network. */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define PAGE_BYTES 4096u
#define PAGE_WORDS 1024u

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0,%1" ::"a"(value), "Nd"(port)); }
static inline void outw(u16 port, u16 value) { __asm__ volatile("outw %0,%1" ::"a"(value), "Nd"(port)); }
static inline void outl(u16 port, u32 value) { __asm__ volatile("outl %0,%1" ::"a"(value), "Nd"(port)); }
static inline u8 inb(u16 port) {
  u8 value;
  __asm__ volatile("inb %1,%0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline u16 inw(u16 port) {
  u16 value;
  __asm__ volatile("inw %1,%0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline u32 inl(u16 port) {
  u32 value;
  __asm__ volatile("inl %1,%0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline u64 rdtsc(void) {
  u64 value;
  __asm__ volatile("rdtsc" : "=A"(value));
  return value;
}

/* options.c */
struct options {
  u32 tick_ms, dirty_pages, pattern, spin;
  u32 ip, prefix;
  u32 memory_kib;  /* all of it, from address 0 */
  u32 heap, pages; /* what the patterns may use: first address, number of pages */
};
enum { SPARSE, FULL, RANDOM, ZERO };
extern struct options options;
void options_read(const char *cmdline, const u32 *multiboot);

/* cpu.c */
extern volatile u32 irq_seen;   /* raised by every interrupt; cleared by who looks for work */
extern volatile u32 net_irq;    /* a frame may be there */
void cpu_init(u32 pit_period_us);
u32 now_ms(void);               /* since cpu_init; counts time of interrupts that came late */
void irq_unmask(u32 irq);
void wait_for_irq(void);

/* serial.c */
void serial_init(void);
void put_char(char c);
void put_text(const char *text);
void put_dec(u32 value);
void put_hex(u32 value, int digits);
void put_ip(u32 ip);
void serial_poll(void);
void power_off(void);

/* memory.c */
void memory_init(void);
void memory_verify(u32 tick);   /* every page that the tick before `tick` dirtied; prints FAULT lines */
void memory_dirty(u32 tick);

/* ne2k.c */
int nic_init(u8 mac[6]);
void nic_quiet(void); /* from the interrupt: takes the request back */
void nic_send(const u8 *frame, u32 bytes);
u32 nic_receive(u8 *frame, u32 capacity); /* 0: nothing there */

/* net.c */
void net_init(void);
void net_poll(void);

/* service.c: answers one UDP request; returns the bytes of the answer */
u32 service_answer(const u8 *request, u32 bytes, u8 *answer);
#define ANSWER_BYTES 96

#endif

/* Entry from the multiboot loader, segments, interrupts, and time. */
#include "guest.h"

void guest_main(u32 magic, const u32 *multiboot);

__attribute__((section(".multiboot"), used, aligned(4))) static const u32 multiboot_header[3] = {
    0x1BADB002, 3, 0u - (0x1BADB002u + 3u)};

u8 boot_stack[16384] __attribute__((aligned(16), used));

__asm__(".pushsection .text\n.globl _start\n"
        "_start: cli\n cld\n mov $boot_stack+16384,%esp\n push %ebx\n push %eax\n call guest_main\n"
        "1: cli\n hlt\n jmp 1b\n"
        /* iret by hand: software KVMs (pvm) do not emulate it outside of paging. Interrupts come
           only while they are allowed; the one instruction after sti is still free of them. */
        ".macro leave_irq\n popa\n andl $~0x200,8(%esp)\n pushl 8(%esp)\n popf\n sti\n ret $8\n.endm\n"
        "irq_pit: pusha\n call on_pit\n leave_irq\n"
        "irq_nic: pusha\n call on_nic\n leave_irq\n"
        "irq_other: pusha\n call on_other\n leave_irq\n"
        /* exceptions: 16 bytes each; `fault_common` sees the vector and what the CPU pushed */
        ".balign 16\nexception_stubs:\n"
        ".set vector,0\n.rept 32\n.balign 16\n push $vector\n jmp fault_common\n"
        ".set vector,vector+1\n.endr\n"
        "fault_common: cld\n call on_exception\n.popsection\n");
extern u8 irq_pit[], irq_nic[], irq_other[], exception_stubs[];

static u64 gdt[3] = {0, 0x00CF9A000000FFFFull, 0x00CF92000000FFFFull};
static u64 idt[256];
struct __attribute__((packed)) table {
  u16 limit;
  u32 base;
};

volatile u32 irq_seen, net_irq;
static u64 tsc_start;
static u32 tsc_per_ms;

__attribute__((used)) static void on_pit(void) {
  net_irq = irq_seen = 1; /* a look at the NIC at least this often */
  outb(0x20, 0x20);
}
__attribute__((used)) static void on_nic(void) {
  nic_quiet();
  net_irq = irq_seen = 1;
  outb(0xA0, 0x20);
  outb(0x20, 0x20);
}
__attribute__((used)) static void on_other(void) { outb(0x20, 0x20); }

__attribute__((used, noreturn)) static void on_exception(u32 vector, u32 a, u32 b, u32 c) {
  put_text("FAULT exception=");
  put_dec(vector);
  put_text(" stack=");
  put_hex(a, 8);
  put_char(' ');
  put_hex(b, 8);
  put_char(' ');
  put_hex(c, 8);
  put_char('\n');
  for (;;) __asm__ volatile("cli; hlt");
}

static void set_gate(u32 vector, const u8 *handler) {
  u32 address = (u32)handler;
  idt[vector] = ((u64)(address & 0xFFFF0000u) << 32) | (0x8E00ull << 32) | (0x08u << 16) |
                (address & 0xFFFFu);
}

static u32 divide(u64 value, u32 by) {
  u32 high = (u32)(value >> 32) % by, quotient, rest;
  __asm__("divl %4" : "=a"(quotient), "=d"(rest) : "0"((u32)value), "1"(high), "r"(by) : "cc");
  return quotient;
}

static u32 pit_counter(void) {
  outb(0x43, 0);
  u32 low = inb(0x40);
  return low | (u32)inb(0x40) << 8;
}

/* PIT and TSC at one moment: the tightest of some tries, for the host may stop us in between. */
static u32 sample(u64 *tsc) {
  u32 tightest = 0xFFFFFFFFu, counter = 0;
  for (int i = 0; i < 16; i++) {
    u64 before = rdtsc();
    u32 read = pit_counter(), took = (u32)(rdtsc() - before);
    if (took >= tightest) continue;
    tightest = took;
    counter = read;
    *tsc = before + took / 2;
  }
  return counter;
}

/* TSC ticks in a millisecond: the least of some measures, for a stall can only make one too large. */
static u32 calibrate(void) {
  u32 least = 0xFFFFFFFFu;
  outb(0x43, 0x34);
  outb(0x40, 0);
  outb(0x40, 0);
  for (int round = 0; round < 3; round++) {
    u64 from_tsc = 0, to_tsc = 0;
    u32 from = sample(&from_tsc);
    while (((from - pit_counter()) & 0xFFFF) < 36000) {
    }
    u32 counted = (from - sample(&to_tsc)) & 0xFFFF;
    u32 per_ms = divide((to_tsc - from_tsc) * 1193182u, counted * 1000u);
    if (per_ms < least) least = per_ms;
  }
  u32 round_mhz = (least + 500) / 1000 * 1000;
  u32 off = least > round_mhz ? least - round_mhz : round_mhz - least;
  return off <= least / 8192 ? round_mhz : least;
}

void irq_unmask(u32 irq) {
  u16 port = irq < 8 ? 0x21 : 0xA1;
  outb(port, (u8)(inb(port) & ~(1u << (irq & 7))));
}

void cpu_init(u32 period_us) {
  struct table gdtr = {sizeof gdt - 1, (u32)gdt}, idtr = {sizeof idt - 1, (u32)idt};
  __asm__ volatile("lgdt %0\n ljmp $8,$1f\n1: mov $16,%%eax\n mov %%ax,%%ds\n mov %%ax,%%es\n"
                   "mov %%ax,%%ss\n mov %%ax,%%fs\n mov %%ax,%%gs" ::"m"(gdtr) : "eax", "memory");
  for (u32 i = 0; i < 256; i++) set_gate(i, i < 32 ? exception_stubs + 16 * i : irq_other);
  set_gate(32, irq_pit);
  set_gate(45, irq_nic);
  set_gate(32 + 5, irq_nic);
  for (u32 irq = 9; irq <= 12; irq++) set_gate(32 + irq, irq_nic);
  __asm__ volatile("lidt %0" ::"m"(idtr));
  static const u8 setup[][2] = {{0x20, 0x11}, {0xA0, 0x11}, {0x21, 32}, {0xA1, 40}, {0x21, 4},
                                {0xA1, 2},    {0x21, 1},    {0xA1, 1},  {0x21, 0xFA}, {0xA1, 0xFF}};
  for (u32 i = 0; i < sizeof setup / 2; i++) outb(setup[i][0], setup[i][1]);
  tsc_per_ms = calibrate();
  u32 reload = period_us * 1193u / 1000u;
  outb(0x43, 0x34);
  outb(0x40, (u8)reload);
  outb(0x40, (u8)(reload >> 8));
  tsc_start = rdtsc();
  __asm__ volatile("sti");
}

u32 now_ms(void) { return divide(rdtsc() - tsc_start, tsc_per_ms); }

void wait_for_irq(void) {
  __asm__ volatile("cli" ::: "memory");
  if (!irq_seen) __asm__ volatile("sti; hlt" ::: "memory");
  __asm__ volatile("sti" ::: "memory");
  irq_seen = 0;
}

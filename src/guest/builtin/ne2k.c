/* A driver for the NE2000 on PCI (10EC:8029), as v86 and QEMU emulate it. */
#include "guest.h"

enum { CMD = 0, PSTART = 1, PSTOP = 2, BNRY = 3, TPSR = 4, TBCR = 5, ISR = 7, RSAR = 8, RBCR = 10 };
enum { RCR = 12, TCR = 13, DCR = 14, IMR = 15, DATA = 16, RESET = 31, PAGE1_PAR = 1, PAGE1_CURR = 7 };
#define TX_PAGE 0x40
#define RX_PAGE 0x46
#define END_PAGE 0x80

static u16 base; /* 0: no NIC */
static u8 next_page;

static void reg_write(u16 reg, u8 value) { outb((u16)(base + reg), value); }

static u32 pci_read(u32 function, u32 reg) {
  outl(0xCF8, 0x80000000u | function << 8 | reg);
  return inl(0xCFC);
}
static void pci_write8(u32 function, u32 reg, u8 value) {
  outl(0xCF8, 0x80000000u | function << 8 | (reg & 0xFC));
  outb((u16)(0xCFC + (reg & 3)), value);
}

/* With no firmware nobody has routed the interrupt: send all four PIRQs to line 11, level. */
static u32 route_irq(u32 function) {
  u32 line = pci_read(function, 0x3C) & 255;
  if (line == 5 || (line >= 9 && line <= 13 && line != 12)) return line;
  u32 bridge = 0xFFFFFFFFu;
  for (u32 f = 0; f < 256; f++)
    if (pci_read(f, 8) >> 16 == 0x0601) bridge = f;
  if (bridge == 0xFFFFFFFFu) return 0;
  for (u32 pirq = 0x60; pirq < 0x64; pirq++) pci_write8(bridge, pirq, 11);
  pci_write8(function, 0x3C, 11);
  outb(0x4D1, inb(0x4D1) | 8);
  return 11;
}

static void remote_dma(u16 address, u32 bytes, u8 command) {
  reg_write(RBCR, (u8)bytes);
  reg_write(RBCR + 1, (u8)(bytes >> 8));
  reg_write(RSAR, (u8)address);
  reg_write(RSAR + 1, (u8)(address >> 8));
  reg_write(CMD, command);
}

static void dma_read(u16 address, u8 *to, u32 bytes) {
  remote_dma(address, (bytes + 1) & ~1u, 0x0A);
  for (u32 i = 0; i < bytes; i += 2) {
    u16 word = inw((u16)(base + DATA));
    to[i] = (u8)word;
    if (i + 1 < bytes) to[i + 1] = (u8)(word >> 8);
  }
}

int nic_init(u8 mac[6]) {
  u32 function = 0;
  while (function < 256 && pci_read(function, 0) != 0x802910EC) function++;
  if (function == 256) return 0;
  pci_write8(function, 4, (u8)(pci_read(function, 4) | 3));
  base = (u16)(pci_read(function, 0x10) & 0xFFFC);
  u32 irq = route_irq(function);
  reg_write(RESET, inb((u16)(base + RESET)));
  reg_write(CMD, 0x21);
  reg_write(DCR, 0x49);
  reg_write(RCR, 0x20);
  reg_write(TCR, 0x02);
  reg_write(IMR, 0);
  u8 prom[12];
  dma_read(0, prom, sizeof prom);
  for (u32 i = 0; i < 6; i++) mac[i] = prom[2 * i];
  reg_write(CMD, 0x21);
  reg_write(PSTART, RX_PAGE);
  reg_write(PSTOP, END_PAGE);
  reg_write(BNRY, END_PAGE - 1);
  reg_write(TPSR, TX_PAGE);
  reg_write(ISR, 0xFF);
  reg_write(CMD, 0x61);
  for (u16 i = 0; i < 6; i++) reg_write((u16)(PAGE1_PAR + i), mac[i]);
  for (u16 i = 8; i < 16; i++) reg_write(i, 0xFF);
  reg_write(PAGE1_CURR, next_page = RX_PAGE);
  reg_write(CMD, 0x22);
  reg_write(TCR, 0);
  reg_write(RCR, 0x04);
  reg_write(IMR, 0x15); /* received, receive error, overwritten */
  if (irq) {
    irq_unmask(irq);
    if (irq > 7) irq_unmask(2);
  }
  return 1;
}

/* The interrupt may come at any time but while page 1 is selected (see nic_receive). */
void nic_quiet(void) { reg_write(ISR, 0x7F); }

void nic_send(const u8 *frame, u32 bytes) {
  if (!base) return;
  u32 length = bytes < 60 ? 60 : (bytes + 1) & ~1u;
  remote_dma(TX_PAGE << 8, length, 0x12);
  for (u32 i = 0; i < length; i += 2) {
    u16 low = i < bytes ? frame[i] : 0, high = i + 1 < bytes ? frame[i + 1] : 0;
    outw((u16)(base + DATA), (u16)(low | high << 8));
  }
  while (inb((u16)(base + CMD)) & 4) {
  }
  reg_write(TBCR, (u8)length);
  reg_write(TBCR + 1, (u8)(length >> 8));
  reg_write(CMD, 0x26);
}

static u8 write_page(void) {
  __asm__ volatile("cli" ::: "memory");
  reg_write(CMD, 0x62);
  u8 page = inb((u16)(base + PAGE1_CURR));
  reg_write(CMD, 0x22);
  __asm__ volatile("sti" ::: "memory");
  return page;
}

u32 nic_receive(u8 *frame, u32 capacity) {
  if (!base) return 0;
  u8 header[4];
  for (;;) {
    u8 end = write_page();
    if (next_page == end) return 0;
    dma_read((u16)(next_page << 8), header, 4);
    u32 bytes = header[2] | (u32)header[3] << 8, next = header[1];
    int sane = next >= RX_PAGE && next < END_PAGE && bytes >= 64 && bytes - 4 <= capacity;
    if (sane) dma_read((u16)((next_page << 8) + 4), frame, bytes - 4);
    next_page = sane ? (u8)next : end;
    reg_write(BNRY, next_page == RX_PAGE ? END_PAGE - 1 : (u8)(next_page - 1));
    if (sane) return bytes - 4;
  }
}

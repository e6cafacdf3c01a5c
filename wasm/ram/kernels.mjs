// Kernels that work inside the memory that holds guest RAM: find dirty pages in the byte map, gather pages,
// compare RAM with a shadow copy. The module has no data and no memory of its own.
import wabtFactory from 'wabt';

const load = (base, offset) => `(v128.load offset=${offset} (local.get ${base}))`;
const differ = (offset) => `(v128.xor ${load('$a', offset)} ${load('$b', offset)})`;
const any = (terms) => terms.reduce((left, right) => `(v128.or ${left} ${right})`);
const differ128 = any([0, 16, 32, 48, 64, 80, 96, 112].map(differ));

const source = `(module
  (import "machine" "memory" (memory 1))

  ;; Writes the indices of the nonzero bytes of map (count: a multiple of 16) to out; returns how
  ;; many.
  (func (export "scan") (param $map i32) (param $count i32) (param $out i32) (result i32)
    (local $i i32) (local $j i32) (local $n i32)
    (loop $blocks
      (if (v128.any_true (v128.load (i32.add (local.get $map) (local.get $i)))) (then
        (local.set $j (local.get $i))
        (loop $bytes
          (if (i32.load8_u (i32.add (local.get $map) (local.get $j))) (then
            (i32.store
              (i32.add (local.get $out) (i32.shl (local.get $n) (i32.const 2)))
              (local.get $j))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))))
          (local.set $j (i32.add (local.get $j) (i32.const 1)))
          (br_if $bytes (i32.and (local.get $j) (i32.const 15))))))
      (local.set $i (i32.add (local.get $i) (i32.const 16)))
      (br_if $blocks (i32.lt_u (local.get $i) (local.get $count))))
    (local.get $n))

  ;; Copies the listed pages of ram, one after the other, to out.
  (func (export "gather") (param $ram i32) (param $list i32) (param $count i32) (param $out i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $list) (i32.shl (local.get $count) (i32.const 2))))
    (block $done (loop $pages
      (br_if $done (i32.eq (local.get $list) (local.get $end)))
      (memory.copy (local.get $out)
        (i32.add (local.get $ram) (i32.shl (i32.load (local.get $list)) (i32.const 12)))
        (i32.const 4096))
      (local.set $out (i32.add (local.get $out) (i32.const 4096)))
      (local.set $list (i32.add (local.get $list) (i32.const 4)))
      (br $pages))))

  ;; Brings the listed pages of the shadow up to date.
  (func (export "refresh") (param $ram i32) (param $shadow i32) (param $list i32) (param $count i32)
    (local $end i32) (local $at i32)
    (local.set $end (i32.add (local.get $list) (i32.shl (local.get $count) (i32.const 2))))
    (block $done (loop $pages
      (br_if $done (i32.eq (local.get $list) (local.get $end)))
      (local.set $at (i32.shl (i32.load (local.get $list)) (i32.const 12)))
      (memory.copy (i32.add (local.get $shadow) (local.get $at))
        (i32.add (local.get $ram) (local.get $at)) (i32.const 4096))
      (local.set $list (i32.add (local.get $list) (i32.const 4)))
      (br $pages))))

  ;; Sets the byte of each listed page in map.
  (func (export "mark") (param $list i32) (param $count i32) (param $map i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $list) (i32.shl (local.get $count) (i32.const 2))))
    (block $done (loop $pages
      (br_if $done (i32.eq (local.get $list) (local.get $end)))
      (i32.store8 (i32.add (local.get $map) (i32.load (local.get $list))) (i32.const 1))
      (local.set $list (i32.add (local.get $list) (i32.const 4)))
      (br $pages))))

  ;; Sets the byte in map of each page that differs between a and b, and leaves the others alone.
  (func (export "compare") (param $a i32) (param $b i32) (param $pages i32) (param $map i32)
    (local $end i32) (local $skip i32)
    (block $done (loop $next
      (br_if $done (i32.eqz (local.get $pages)))
      (local.set $end (i32.add (local.get $a) (i32.const 4096)))
      (block $same (loop $lines
        (if (v128.any_true ${differ128}) (then
          (i32.store8 (local.get $map) (i32.const 1))
          (local.set $skip (i32.sub (local.get $end) (local.get $a)))
          (local.set $a (local.get $end))
          (local.set $b (i32.add (local.get $b) (local.get $skip)))
          (br $same)))
        (local.set $b (i32.add (local.get $b) (i32.const 128)))
        (local.set $a (i32.add (local.get $a) (i32.const 128)))
        (br_if $lines (i32.ne (local.get $a) (local.get $end)))))
      (local.set $map (i32.add (local.get $map) (i32.const 1)))
      (local.set $pages (i32.sub (local.get $pages) (i32.const 1)))
      (br $next))))

  (func (export "copy") (param $to i32) (param $from i32) (param $bytes i32)
    (memory.copy (local.get $to) (local.get $from) (local.get $bytes)))
)`;

export async function assembleKernels() {
  const wabt = await wabtFactory();
  const module = wabt.parseWat('ram-kernels.wat', source, { simd: true, bulk_memory: true });
  try {
    return module.toBinary({}).buffer;
  } finally {
    module.destroy();
  }
}

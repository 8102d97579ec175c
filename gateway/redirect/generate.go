package redirect

// The object and the Go file beside it are committed, so that building needs no
// compiler for BPF. Regenerating needs clang 14 or newer, llvm-strip and the
// headers of libbpf; the include directories are those of Debian's multiarch,
// and one that does not exist is skipped.

//go:generate go tool bpf2go -cc clang -target bpfel -type drop_reason -type mark -type limits -type bottle_state -type bottle -type link_stats -type instance -type flow_state -type flow_phase -type flow_reason -type event_kind -type flow_key -type flow -type destination_key -type destination -type pin_key -type pin -type name -type hello -type usage -type slot_set -type lane -type reverse_key -type reverse -type event -type told_key -type skb_layout gateway ../../bpf/gateway.bpf.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -I../../bpf -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

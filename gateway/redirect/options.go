package redirect

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// Options are what an instance needs to know about the machine. The zero value
// of each field has the default that its comment names.
type Options struct {
	// Instance names the nftables table and marks the interfaces that the
	// instance made, so that several can run side by side. 1 to 32 letters,
	// digits, '-' or '_'; default "gatewayd".
	Instance string
	// BPFFS is the directory for pins, on a mounted BPF file system and used
	// by this instance alone; default /sys/fs/bpf/INSTANCE. Its last element
	// must not contain a dot, which bpffs refuses.
	BPFFS string
	// RunDir is the instance's directory for run-time files. It is reserved:
	// nothing is written there at present.
	RunDir string
	// Uplink is the interface through which marked fast-path packets may be
	// forwarded; with "" none may.
	Uplink string
	// Attach selects the hook. Leave it AttachAuto but to test the other way.
	Attach AttachMode
	// Recheck is how often Watch looks at everything even if the kernel
	// reported no change; default 3 s. A detached tcx program is reported by
	// nothing else.
	Recheck time.Duration
	// Forward leaves verified fast-path flows to the stack, where netfilter sees
	// them, as on a kernel that cannot tell the programs how it translates.
	Forward bool
	// replace gives up pinned maps of another layout, flows or not.
	replace bool
	// Log receives repairs and changes of state; default slog.Default().
	Log *slog.Logger
}

const (
	defaultInstance = "gatewayd"
	defaultBPFRoot  = "/sys/fs/bpf"
	defaultRecheck  = 3 * time.Second
	maxInstanceLen  = 32
)

// withDefaults returns the options completed, or an error that names the field
// that cannot be used.
func (o Options) withDefaults() (Options, error) {
	if o.Instance == "" {
		o.Instance = defaultInstance
	}
	if !validInstance(o.Instance) {
		return o, fmt.Errorf("validate instance %q: write 1 to %d letters, digits, '-' or '_'", o.Instance, maxInstanceLen)
	}
	if o.BPFFS == "" {
		o.BPFFS = filepath.Join(defaultBPFRoot, o.Instance)
	}
	o.BPFFS = filepath.Clean(o.BPFFS)
	if !filepath.IsAbs(o.BPFFS) || o.BPFFS == "/" {
		return o, fmt.Errorf("validate bpffs directory %q: write an absolute path on a BPF file system", o.BPFFS)
	}
	if o.Uplink != "" && !validInterfaceName(o.Uplink) {
		return o, fmt.Errorf("validate uplink %q: write an interface name", o.Uplink)
	}
	switch o.Attach {
	case AttachAuto, AttachTCX, AttachClsact:
	default:
		return o, fmt.Errorf("validate attach mode %q: write \"\", %q or %q", o.Attach, AttachTCX, AttachClsact)
	}
	if o.Recheck <= 0 {
		o.Recheck = defaultRecheck
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o, nil
}

func validInstance(s string) bool {
	if s == "" || len(s) > maxInstanceLen {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		if !letter && !(i > 0 && (digit || c == '-' || c == '_')) {
			return false
		}
	}
	return true
}

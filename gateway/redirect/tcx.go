package redirect

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// tcxHooks attaches through tcx links that are pinned, so that they outlive the
// process and are replaced by link update.
type tcxHooks struct {
	dir    *pinDir
	points []hookPoint
}

type tcxHook struct {
	pin  string
	at   ebpf.AttachType
	prog *ebpf.Program
	id   ebpf.ProgramID
}

func (h *tcxHooks) hooks(ifindex int) []tcxHook {
	all := make([]tcxHook, 0, len(h.points))
	for _, p := range h.points {
		at := ebpf.AttachTCXIngress
		if p.egress {
			at = ebpf.AttachTCXEgress
		}
		all = append(all, tcxHook{h.dir.join(linksDir, fmt.Sprintf("%s_%d", p.pin, ifindex)), at, p.prog, p.id})
	}
	return all
}

func (h *tcxHooks) mode() AttachMode { return AttachTCX }

func (h *tcxHooks) attached(ifindex int) (bool, error) {
	for _, hook := range h.hooks(ifindex) {
		ok, err := hook.attached(ifindex)
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (h *tcxHooks) attach(ifindex int) error {
	for _, hook := range h.hooks(ifindex) {
		if err := hook.attach(ifindex); err != nil {
			return err
		}
	}
	return nil
}

func (h *tcxHooks) update(ifindex int) (bool, error) {
	for _, hook := range h.hooks(ifindex) {
		if err := hook.update(ifindex); err != nil {
			return false, err
		}
	}
	return h.attached(ifindex)
}

func (h *tcxHooks) detach(ifindex int) error {
	var errs []error
	for _, hook := range h.hooks(ifindex) {
		errs = append(errs, hook.detach())
	}
	return errors.Join(errs...)
}

// attached asks the kernel, not the pin: the pinned link must still be on this
// interface and run this program, and for ingress that program must be first.
func (h tcxHook) attached(ifindex int) (bool, error) {
	l, err := link.LoadPinnedLink(h.pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open pinned link: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("examine pinned link: %w", err)
	}
	if tcx := info.TCX(); tcx == nil || int(tcx.Ifindex) != ifindex || info.Program != h.id {
		return false, nil
	}
	running, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: h.at})
	if err != nil {
		return false, fmt.Errorf("query programs: %w", err)
	}
	if h.at == ebpf.AttachTCXIngress {
		return len(running.Programs) > 0 && running.Programs[0].ID == h.id, nil
	}
	for _, p := range running.Programs {
		if p.ID == h.id {
			return true, nil
		}
	}
	return false, nil
}

// attach takes away what the pin holds and puts the program at the head.
func (h tcxHook) attach(ifindex int) error {
	if err := h.detach(); err != nil {
		return err
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: h.prog, Attach: h.at, Anchor: link.Head()})
	if err != nil {
		return fmt.Errorf("attach program: %w", err)
	}
	defer l.Close()
	if err := l.Pin(h.pin); err != nil {
		return fmt.Errorf("pin link: %w", err)
	}
	return nil
}

// update swaps the program of a link that is alive on the interface; a missing
// or foreign pin is not an error here, the read-back tells.
func (h tcxHook) update(ifindex int) error {
	l, err := link.LoadPinnedLink(h.pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pinned link: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return fmt.Errorf("examine pinned link: %w", err)
	}
	if tcx := info.TCX(); tcx == nil || int(tcx.Ifindex) != ifindex || info.Program == h.id {
		return nil
	}
	if err := l.Update(h.prog); err != nil {
		return fmt.Errorf("update link: %w", err)
	}
	return nil
}

func (h tcxHook) detach() error {
	l, err := link.LoadPinnedLink(h.pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pinned link: %w", err)
	}
	defer l.Close()
	if err := l.Unpin(); err != nil {
		return fmt.Errorf("unpin link: %w", err)
	}
	return nil
}

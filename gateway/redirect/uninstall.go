package redirect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Uninstall removes what the instance made, in this order: the interfaces and
// namespaces that it created, the programs from those that it found (which it
// leaves down), the pins, the routing rule and route unless another instance
// uses them, and last the nftables table. It returns what it removed, also when
// it returns an error.
//
// It refuses with a *StateError while a process has one of the taps open or is
// in one of the namespaces, and with ErrLocked while the instance runs: a bottle
// must be stopped before its guard is taken away.
func Uninstall(ctx context.Context, o Options) (removed []string, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u := uninstaller{options: o, released: make(map[string]bool)}
	err = u.run()
	return u.removed, err
}

type uninstaller struct {
	options  Options
	removed  []string
	released map[string]bool // interfaces that the programs were taken off
}

func (u *uninstaller) note(format string, args ...any) {
	u.removed = append(u.removed, fmt.Sprintf(format, args...))
}

func (u *uninstaller) run() error {
	_, err := os.Stat(u.options.BPFFS)
	if errors.Is(err, fs.ErrNotExist) {
		if err := u.removeLinks(); err != nil {
			return err
		}
		return u.removeShared()
	}
	dir, err := openPinDir(u.options.BPFFS)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := u.removeLinks(); err != nil {
		return err
	}
	if err := u.release(dir); err != nil {
		return err
	}
	if err := dir.remove(); err != nil {
		return err
	}
	u.note("pins %s", dir.path)
	return u.removeShared()
}

// removeLinks deletes the interfaces that the instance made, all or none.
func (u *uninstaller) removeLinks() error {
	made, err := u.created()
	if err != nil {
		return err
	}
	for _, dev := range made {
		if err := refuseInUse(dev); err != nil {
			return err
		}
	}
	return u.removeCreated(made)
}

// created returns the interfaces that carry one of the instance's aliases.
func (u *uninstaller) created() ([]netlink.Link, error) {
	all, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var made []netlink.Link
	for _, dev := range all {
		if strings.HasPrefix(dev.Attrs().Alias, alias(u.options.Instance, "")) {
			made = append(made, dev)
		}
	}
	return made, nil
}

// refuseInUse is an error if a process would lose its link.
func refuseInUse(dev netlink.Link) error {
	name := dev.Attrs().Name
	if tap, ok := dev.(*netlink.Tuntap); ok {
		open, err := tapOpen(tap)
		if err != nil || !open {
			return err
		}
		return &StateError{Object: "tap " + name, Cause: "a process has it open", Remedy: "stop the virtual machine first"}
	}
	_, path, _ := strings.Cut(dev.Attrs().Alias, aliasNetns)
	pid, err := processIn(path)
	if err != nil || pid == "" {
		return err
	}
	return &StateError{Object: "namespace " + path, Cause: "process " + pid + " is in it", Remedy: "stop the bottle first"}
}

// processIn returns a process whose main thread is in the namespace at path, ""
// if there is none.
func processIn(path string) (string, error) {
	var ns unix.Stat_t
	if path == "" || unix.Stat(path, &ns) != nil {
		return "", nil
	}
	processes, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return "", fmt.Errorf("list processes: %w", err)
	}
	for _, p := range processes {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil && st.Ino == ns.Ino && st.Dev == ns.Dev {
			return strings.Split(p, "/")[2], nil
		}
	}
	return "", nil
}

// removeCreated deletes interfaces, and namespaces that carry the same alias on
// their lo, which only those do that were created for the bottle.
func (u *uninstaller) removeCreated(made []netlink.Link) error {
	for _, dev := range made {
		name := dev.Attrs().Name
		if err := netlink.LinkDel(dev); err != nil {
			return fmt.Errorf("delete interface %s: %w", name, err)
		}
		u.note("interface %s", name)
		owner, path, ok := strings.Cut(dev.Attrs().Alias, aliasNetns)
		if !ok {
			continue
		}
		ours, err := namespaceMadeFor(path, owner)
		if err != nil {
			return err
		}
		if ours {
			if err := removeNetns(path); err != nil {
				return err
			}
			u.note("namespace %s", path)
		}
	}
	return nil
}

func namespaceMadeFor(path, owner string) (ours bool, err error) {
	ns, err := openNetns(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer ns.Close()
	err = inNetns(ns, func() error {
		lo, err := netlink.LinkByIndex(loopbackIndex)
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		ours = lo.Attrs().Alias == owner
		return nil
	})
	return ours, err
}

// release takes the programs off interfaces that somebody else made, and leaves
// them down: whoever wants to use them unguarded must set them up himself.
func (u *uninstaller) release(dir *pinDir) error {
	options := u.options
	options.replace = true
	objects, _, err := loadObjects(dir, options)
	if err != nil {
		return err
	}
	defer objects.Close()
	if err := u.releaseUplinks(dir, objects); err != nil {
		return err
	}
	if err := u.restoreForwarding(objects); err != nil {
		return err
	}
	table := bottleTable{objects.Bottles, objects.Stats}
	known, err := table.known()
	if err != nil {
		return err
	}
	for _, index := range known {
		dev, err := findLinkByIndex(index)
		if err != nil {
			return err
		}
		if dev == nil {
			continue
		}
		if err := errors.Join(table.shut(index), setDown(dev)); err != nil {
			return err
		}
		clsact := &clsactHooks{points: onCapture(objects)}
		tcx := &tcxHooks{dir: dir, points: onCapture(objects)}
		if err := errors.Join(clsact.detach(index), tcx.detach(index)); err != nil {
			return err
		}
		u.released[dev.Attrs().Name] = true
		u.note("programs on interface %s, which is left down", dev.Attrs().Name)
	}
	return nil
}

// restoreForwarding switches off what was switched on for the fast path.
func (u *uninstaller) restoreForwarding(o *gatewayObjects) error {
	r := &Redirect{options: u.options, objects: o}
	if ours, err := r.forwardsForUs(); err != nil || !ours {
		return err
	}
	changed, err := r.ensureForwarding(false)
	if changed {
		u.note("forwarding on interface %s", u.options.Uplink)
	}
	return err
}

// removeShared removes the rule, the route and the table.
func (u *uninstaller) removeShared() error {
	wall := firewall{instance: u.options.Instance, uplink: u.options.Uplink}
	others, err := wall.others()
	if err != nil {
		return err
	}
	if len(others) == 0 {
		routing, err := removeRouting()
		u.removed = append(u.removed, routing...)
		if err != nil {
			return err
		}
	}
	held, err := removeHeld(u.released)
	u.removed = append(u.removed, held...)
	if err != nil {
		return err
	}
	there, err := wall.remove()
	if there && err == nil {
		u.note("nftables table inet %s", u.options.Instance)
	}
	return err
}

package redirect

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// reconcile makes the machine what the configuration says, from the outside in:
// the layers that all links share, then link by link. With repair, whatever it
// has to change is somebody else's doing: counted, and logged as such.
func (r *Redirect) reconcile(repair bool) error {
	names, err := r.collect()
	if err != nil {
		return r.shutAll(err)
	}
	r.checkFastPath()
	changes, err := r.ensureNamespace(names)
	if err != nil {
		return r.shutAll(err)
	}
	if repair && len(changes) > 0 {
		r.repairs++
		r.options.Log.Warn("repaired the shared layers", "instance", r.options.Instance, "changes", changes)
	}
	for _, l := range r.config.Links {
		r.reconcileLink(l, repair)
	}
	changed, err := r.ensureLane()
	if repair && changed {
		r.options.Log.Info("the uplink has changed", "uplink", r.options.Uplink)
	}
	return err
}

// ensureNamespace puts in place what all links share, and returns the names of
// what it had to change. links are the interfaces to be named in the table.
func (r *Redirect) ensureNamespace(links []string) (changes []string, err error) {
	changed, err := r.ensureForwarding(r.fast.obstacle == "")
	if err != nil {
		return changes, err
	}
	if changed {
		changes = append(changes, "forwarding of the uplink")
	}
	if changed, err = r.ensureWall(links); err != nil {
		return changes, err
	}
	if changed {
		changes = append(changes, "nftables table")
	}
	if changed, err = ensureGuard(r.dir, r.objects.GuardListeners); err != nil {
		return changes, err
	}
	if changed {
		changes = append(changes, "socket lookup program")
	}
	if changed, err = ensureRouting(); err != nil {
		return changes, err
	}
	if changed {
		changes = append(changes, "routing rule")
	}
	return changes, nil
}

// checkFastPath looks whether the kernel can forward, and says so when that has
// changed.
func (r *Redirect) checkFastPath() {
	obstacle, _ := fastObstacle(r.options)
	if obstacle == "" {
		obstacle = r.unread
	}
	if obstacle == "" && r.wall.refused != "" {
		obstacle = r.wall.refused
	}
	if obstacle == "" && len(r.config.Links) == 0 && !r.hadFlows() {
		obstacle = "no link is set up"
	}
	r.setObstacle(obstacle)
	if obstacle != "" || len(r.fast.pins) == 0 {
		return
	}
	uplink, err := r.routes.indexOf(r.options.Uplink)
	if err != nil {
		return // the next look finds that there is an obstacle
	}
	if err := r.fast.dropAddrs(func(a netip.Addr) bool { return r.routes.leavesBy(a, uplink) }); err != nil {
		r.options.Log.Error("pins of addresses that have another route now are still there", "error", err)
	}
}

// hadFlows tells whether an earlier process's flows still refer to permissions,
// and no Set has said yet what becomes of them.
func (r *Redirect) hadFlows() bool { return !r.configured && len(r.fast.grants) > 0 }

func (r *Redirect) setObstacle(obstacle string) {
	if obstacle == r.fast.obstacle {
		return
	}
	r.fast.obstacle = obstacle
	if obstacle == "" {
		r.options.Log.Info("the fast path is open", "uplink", r.options.Uplink)
		return
	}
	r.options.Log.Info("passed-through flows take the relay", "obstacle", obstacle)
}

// ensureWall puts the second layer in place. A kernel that has no address
// translation refuses the rules of the fast path, which then is not used.
func (r *Redirect) ensureWall(links []string) (changed bool, err error) {
	if r.wall.guard, err = r.forwardsForUs(); err != nil {
		return false, err
	}
	r.wall.fast = r.fast.obstacle == ""
	changed, err = r.wall.ensure(links)
	if err == nil || !r.wall.fast {
		return changed, err
	}
	r.wall.fast, r.wall.refused = false, err.Error()
	r.setObstacle(r.wall.refused)
	if _, err := r.ensureForwarding(false); err != nil {
		return changed, err
	}
	if r.wall.guard, err = r.forwardsForUs(); err != nil {
		return changed, err
	}
	return r.wall.ensure(links)
}

// collect forgets interfaces that are gone, shuts those that are no longer
// configured, and returns the names of all that the second layer must hold.
func (r *Redirect) collect() (names []string, err error) {
	for _, l := range r.config.Links {
		names = append(names, l.Name)
	}
	known, err := r.table.known()
	if err != nil {
		return nil, err
	}
	for _, index := range known {
		dev, err := findLinkByIndex(index)
		if err != nil {
			return nil, err
		}
		if dev == nil {
			if err := r.forget(index); err != nil {
				return nil, err
			}
			continue
		}
		name := dev.Attrs().Name
		if !slices.Contains(names, name) {
			if err := r.shut(dev); err != nil {
				return nil, err
			}
			names = append(names, name)
		}
	}
	return names, nil
}

// forget drops what is held for an interface that is gone; its counters go to
// the link's past.
func (r *Redirect) forget(index int) error {
	for _, state := range r.links {
		if state.status.Ifindex != index {
			continue
		}
		last, err := r.table.read(index)
		if err != nil {
			return err
		}
		state.past.add(last)
		state.last = index
		state.status.Ifindex, state.status.Up, state.status.Attached = 0, false, AttachAuto
	}
	if err := r.hooks.detach(index); err != nil {
		return err
	}
	if err := errors.Join(r.fast.revoke(uint32(index), nil), r.told.forget(uint32(index))); err != nil {
		return err
	}
	return r.table.forget(index)
}

// reconcileLink brings one link to where it should be, and shuts it if that
// fails.
func (r *Redirect) reconcileLink(l Link, repair bool) {
	state := r.links[l.Bottle]
	if state == nil {
		state = &linkState{}
		r.links[l.Bottle] = state
	}
	before := state.status
	now := LinkStatus{Link: l, Repairs: before.Repairs}
	changes, err := r.ensureLink(&now)
	log := r.options.Log.With("bottle", l.Bottle, "link", l.Name)
	if err != nil {
		now.Ifindex = cmp.Or(now.Ifindex, before.Ifindex) // what was the link is shut, though it may be so no longer
		now.Err = &LinkError{Bottle: l.Bottle, Link: l.Name, Op: "guard", Err: errors.Join(err, r.shutLink(l, now.Ifindex))}
		now.Up, now.Attached = false, AttachAuto
		if before.Err == nil || before.Err.Error() != now.Err.Error() {
			log.Error("capture link is shut", "error", now.Err)
		}
	}
	if len(changes) > 0 {
		if repair {
			now.Repairs++
			log.Warn("repaired capture link", "changes", changes)
		} else {
			log.Info("set up capture link", "changes", changes)
		}
	}
	state.status = now
}

// ensureLink guards a link, reads the guard back, and only then opens it. It
// returns the names of what it had to change, also with an error.
func (r *Redirect) ensureLink(s *LinkStatus) (changes []string, err error) {
	dev, changes, err := device(r.options.Instance, s.Link)
	if dev != nil {
		s.Ifindex = dev.Attrs().Index
	}
	if err != nil {
		return changes, err
	}
	closed, err := entry(s.Link, dev.Attrs().HardwareAddr, false)
	if err != nil {
		return changes, err
	}
	attached, err := r.hooks.update(s.Ifindex)
	if err != nil {
		return changes, err
	}
	if !attached {
		if err := r.attach(dev, closed); err != nil {
			return changes, err
		}
		changes = append(changes, "attached programs")
	}
	s.Attached = r.hooks.mode()
	more, err := r.prepare(dev, s.Link)
	changes = append(changes, more...)
	if err != nil {
		return changes, err
	}
	if dev, err = findLinkByIndex(s.Ifindex); err != nil {
		return changes, err
	}
	if dev == nil {
		return changes, fmt.Errorf("find interface %s: it was deleted meanwhile", s.Link.Name)
	}
	more, err = r.openLink(dev, s.Link)
	s.Up = err == nil
	return append(changes, more...), err
}

// attach sets a link down, shuts its entry, and attaches the programs. Nothing
// of an earlier state of the interface is trusted.
func (r *Redirect) attach(dev netlink.Link, closed gatewayBottle) error {
	index := dev.Attrs().Index
	if err := setDown(dev); err != nil {
		return err
	}
	if _, err := r.table.put(index, closed); err != nil {
		return err
	}
	if err := r.hooks.attach(index); err != nil {
		return err
	}
	attached, err := r.hooks.attached(index)
	if err != nil {
		return err
	}
	if !attached {
		return errors.New("read back attached programs: they are not there, or not the first")
	}
	return nil
}

// prepare sets what may be set while a link is still down.
func (r *Redirect) prepare(dev netlink.Link, l Link) (changes []string, err error) {
	forward := r.fast.obstacle == ""
	if forward { // before forwarding is switched on
		held, err := ensureHeld(dev.Attrs().Name)
		if held {
			changes = append(changes, "routing rule")
		}
		if err != nil {
			return changes, err
		}
	}
	more, err := ensureSysctls(dev.Attrs().Name, forward)
	changes = append(changes, more...)
	if err != nil {
		return changes, err
	}
	changed, err := ensureMTU(dev, l.mtu())
	if changed {
		changes = append(changes, "mtu")
	}
	if err != nil {
		return changes, err
	}
	changed, err = ensureAddress(dev, l.Gateway, l.hostBits(), l.Kind == Tap || l.Kind == Netns)
	if changed {
		changes = append(changes, "address")
	}
	return changes, err
}

// openLink opens the entry and sets the link up. The permanent neighbour and the
// route come last, since the kernel drops both when a link goes down.
func (r *Redirect) openLink(dev netlink.Link, l Link) (changes []string, err error) {
	open, err := entry(l, dev.Attrs().HardwareAddr, true)
	if err != nil {
		return nil, err
	}
	if r.fast.obstacle == "" {
		if err := r.fast.begin(uint32(dev.Attrs().Index)); err != nil {
			return nil, err
		}
		open.Fast = 1
	}
	straight, err := goesStraightIn(dev, l)
	if err != nil {
		return nil, err
	}
	if straight {
		open.Peer = 1
	}
	changed, err := r.table.put(dev.Attrs().Index, open)
	if changed {
		changes = append(changes, "entry")
	}
	if err != nil {
		return changes, err
	}
	changed, err = ensureUp(dev)
	if changed {
		changes = append(changes, "up")
	}
	if err != nil {
		return changes, err
	}
	changed, err = ensureNeighbour(dev, l)
	if changed {
		changes = append(changes, "neighbour")
	}
	if err != nil || l.Kind != Adopted {
		return changes, err
	}
	changed, err = ensureRoute(dev, l.Guest)
	if changed {
		changes = append(changes, "route")
	}
	return changes, err
}

// shut closes an interface's entry and sets it down. Its programs stay.
func (r *Redirect) shut(dev netlink.Link) error {
	index := dev.Attrs().Index
	return errors.Join(r.table.shut(index), r.fast.revoke(uint32(index), nil), r.told.forget(uint32(index)), setDown(dev))
}

// shutLink shuts a link that could not be guarded: the interface that was
// looked at, or the one of its name that was never reached.
func (r *Redirect) shutLink(l Link, index int) error {
	if index == 0 {
		return nil // nothing was found that is this link's
	}
	dev, err := findLinkByIndex(index)
	if err != nil || dev == nil {
		return errors.Join(err, r.table.shut(index))
	}
	return r.shut(dev)
}

// shutAll shuts every link that has an entry, and returns the cause joined with
// what went wrong on the way.
func (r *Redirect) shutAll(cause error) error {
	errs := []error{cause}
	known, err := r.table.known()
	errs = append(errs, err)
	for _, index := range known {
		errs = append(errs, r.table.shut(index), r.fast.revoke(uint32(index), nil), r.told.forget(uint32(index)))
		dev, err := findLinkByIndex(index)
		if err != nil || dev == nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, setDown(dev))
	}
	for _, l := range r.config.Links {
		state := r.links[l.Bottle]
		if state == nil {
			state = &linkState{}
			r.links[l.Bottle] = state
		}
		state.status.Link, state.status.Up = l, false
		state.status.Err = &LinkError{Bottle: l.Bottle, Link: l.Name, Op: "guard", Err: cause}
	}
	return errors.Join(errs...)
}

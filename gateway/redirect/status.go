package redirect

// AttachMode is how a program hangs on a link.
type AttachMode string

const (
	// AttachAuto takes tcx where the kernel has it (Linux 6.6), else clsact.
	AttachAuto AttachMode = ""
	// AttachTCX uses a pinned tcx link.
	AttachTCX AttachMode = "tcx"
	// AttachClsact uses a direct-action filter of a clsact qdisc.
	AttachClsact AttachMode = "clsact"
)

// Status is what the last reconciliation found and did.
type Status struct {
	// Links has one entry per configured link, in the order of the Config.
	Links []LinkStatus
	// Repairs counts what Watch had to put right outside any link: the
	// nftables table, the routing rule, the socket-lookup program.
	Repairs int
}

// LinkStatus is the state of one capture link.
type LinkStatus struct {
	Link     Link
	Ifindex  int        // 0 when the interface does not exist
	Up       bool       // administratively up, which it is only when attached
	Attached AttachMode // AttachAuto ("") when not attached
	Err      error      // why the link is shut, or nil
	Repairs  int        // how often Watch had to put the link right
}

// Err returns the links' errors joined, nil if every link is up.
func (s Status) Err() error {
	var errs linkErrors
	for _, l := range s.Links {
		if l.Err != nil {
			errs = append(errs, l.Err)
		}
	}
	return errs.join()
}

package oci

import (
	"fmt"
	"strconv"
	"strings"
)

// Where users and groups are.
const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
)

// user returns the numbers of the user whom an image's configuration names: USER[:GROUP], names or numbers, root if empty
// (config.md of the OCI image specification).
func (d *draft) user(name string) (owner, error) {
	if name == "" {
		return owner{}, nil
	}
	name, group, hasGroup := strings.Cut(name, ":")
	var o owner
	uid, numeric := number(name)
	line := d.entry(passwdFile, func(f []string) bool {
		n, ok := number(f[2])
		return ok && (f[0] == name || numeric && n == uid)
	}, 4)
	switch {
	case line != nil:
		o.uid, _ = number(line[2])
		o.gid, _ = number(line[3])
	case numeric:
		o.uid = uid
	default:
		return o, fmt.Errorf("the image runs as %q, who is not in its %s", name, passwdFile)
	}
	if !hasGroup {
		return o, nil
	}
	gid, numeric := number(group)
	if line := d.entry(groupFile, func(f []string) bool { return f[0] == group }, 3); line != nil {
		gid, numeric = number(line[2])
	}
	if !numeric {
		return o, fmt.Errorf("the image runs as group %q, which is not in its %s", group, groupFile)
	}
	o.gid = gid
	return o, nil
}

// entry returns the fields, at least so many, of the first line of a file of the image that fits (passwd(5)).
func (d *draft) entry(name string, fits func([]string) bool, least int) []string {
	_, n := d.base.tree.find(name)
	if n == nil || n.kind != file {
		return nil
	}
	for line := range strings.Lines(string(d.contents[n.content])) {
		if f := strings.Split(strings.TrimRight(line, "\r\n"), ":"); len(f) >= least && fits(f) {
			return f
		}
	}
	return nil
}

// number reads a user's or group's number.
func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}

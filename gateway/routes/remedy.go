package routes

import (
	"fmt"
	"slices"
	"strings"
)

// Remedy returns the manifest lines (YAML, ending in a line break) that would
// allow what was denied, or "" when nothing was denied or no manifest could
// allow it: a name or a path that is not canonical, a method that is never
// forwarded. The lines hold nothing but what the guest asked for and what the
// plan already says; they carry no secret.
func (v Verdict) Remedy() string {
	q := v.asked
	switch v.Reason {
	case NoRoute, PortDenied:
		return routeLines(q, nil, nil)
	case ProtocolDenied:
		return fmt.Sprintf("# %s has another protocol (%s); it would have to become:\n", v.Rule, v.Route.Origin) + routeLines(q, nil, nil)
	case MethodDenied:
		if !forwardable(q.Method) {
			return ""
		}
		return v.changed(append(slices.Clone(v.Route.Methods), q.Method), v.Route.Paths)
	case PathDenied:
		return v.changed(v.Route.Methods, append(slices.Clone(v.Route.Paths), suggestedPath(q.Path)))
	}
	return ""
}

// Remedy returns the lines for a request that is decided anew.
func (t *Table) Remedy(q Request) string { return t.Decide(q).Remedy() }

// changed returns the governing route's lines with other lists.
func (v Verdict) changed(methods, paths []string) string {
	q := v.asked
	q.Host = v.Route.Host
	return fmt.Sprintf("# %s (%s), with the rest of it as it is:\n", v.Rule, v.Route.Origin) + routeLines(q, methods, paths)
}

func routeLines(q Request, methods, paths []string) string {
	var b strings.Builder
	b.WriteString("egress:\n  routes:\n    - host: " + yamlString(q.Host) + "\n")
	if q.Port != q.Protocol.DefaultPort() {
		fmt.Fprintf(&b, "      port: %d\n", q.Port)
	}
	if q.Protocol != HTTPS {
		fmt.Fprintf(&b, "      protocol: %s\n", q.Protocol)
	}
	if methods != nil {
		b.WriteString("      methods: [" + strings.Join(methods, ", ") + "]\n")
	}
	if paths != nil {
		quotedPaths := make([]string, len(paths))
		for i, p := range paths {
			quotedPaths[i] = yamlString(p)
		}
		b.WriteString("      paths: [" + strings.Join(quotedPaths, ", ") + "]\n")
	}
	return b.String()
}

// suggestedPath returns a pattern that matches the path: itself, or, when it
// is too long for a pattern, everything below its first segment.
func suggestedPath(path string) string {
	if ValidatePathPattern(path) == nil {
		return path
	}
	if i := strings.IndexByte(path[1:], '/'); i >= 0 && i < 256 && !strings.Contains(path[:1+i], "*") {
		return path[:1+i] + "/**"
	}
	return "/**"
}

// yamlString returns a scalar that YAML reads back as s. s is printable ASCII
// without quotes or backslashes: a canonical name, pattern or path.
func yamlString(s string) string {
	if strings.HasPrefix(s, "/") || strings.HasPrefix(s, "*") {
		return `"` + s + `"`
	}
	return s
}

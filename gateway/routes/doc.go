// Package routes is the pure vocabulary of egress policy: canonical names and
// paths, routes and their merging, the immutable table that decides, and the
// classes of addresses that a destination may fall into.
//
// Nothing here touches the machine, logs, blocks or keeps time. Every zero
// value denies: the zero [Decision] is Deny, a nil [Table] denies everything,
// the zero [AddrClass] is not Public, and the zero [Guard] lets only public
// addresses through.
package routes

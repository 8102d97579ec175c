package main

import "gatewayd/gateway/routes"

// reasonWords says in words what a reason means, for the reasons that a plan gives; "" for others, which records explain
// with their error.
func reasonWords(r routes.Reason) string {
	words := map[routes.Reason]string{
		routes.RouteMatched:     "a route of the plan allows it",
		routes.NoRoute:          "no route names the host",
		routes.PortDenied:       "routes name the host, none of them on this port",
		routes.ProtocolDenied:   "the route for this host and port has another protocol",
		routes.MethodDenied:     "the route does not list the method",
		routes.PathDenied:       "no path pattern of the route matches",
		routes.PathNotCanonical: "the path can be read in more than one way, so that matching it would prove nothing",
		routes.BadName:          "the host is not a canonical DNS name",
	}
	if w, ok := words[r]; ok {
		return w
	}
	return "see docs/OPERATIONS.md"
}

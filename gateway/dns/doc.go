// Package dns is the only name server that a bottle can reach, and the resolver behind it.
//
// The server never forwards what the guest sent. It reads one question out of the message, asks the plan about the name, and
// for a name of the plan the [Resolver] asks its own question upstream. Addresses that a guest is told are first written as
// [Pins]: what the gateway later lets pass by address is what it answered itself.
package dns

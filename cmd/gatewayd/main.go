// Command gatewayd stands between microVMs that hold coding agents and the internet. See docs/gatewayd.8.
package main

import "os"

func main() {
	os.Exit(run(process(), os.Args[1:]))
}

//go:build race

package gateway

// raceDetector says that the race detector is on, which keeps shadows of its own and makes pools forget.
const raceDetector = true

//go:build race

package integration

// raceFactor is what the race detector, with which the relay is then built as
// well, may multiply its memory by.
const raceFactor = 4

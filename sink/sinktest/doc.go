// Package sinktest is the conformance suite of the contract in package sink.
//
// A sink's tests call [Run] with a function that makes a [Harness]: how to come
// by sinks, as separate processes would, and how to see what a consumer sees.
// The suite knows nothing of the destination, so that the same stories run
// against a fake in unit tests and against real servers elsewhere. It waits for
// signals and never for time; a sink that loses one hangs until the test
// binary's own timeout, or the context of the harness, ends it.
package sinktest

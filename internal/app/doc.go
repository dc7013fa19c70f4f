// Package app wires a configuration into a running relay: it is the only place
// where the configuration file's keys meet the layers' own Configs.
//
// Run is what `walpost run` does, Init what `walpost init` does. Both binaries
// call them; neither knows more of the layers than this package offers.
package app

package app

import (
	"errors"
	"strings"
	"testing"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/relay"
	"github.com/walpost/walpost/replication"
)

// What Init does about the slot follows from what is there and what was asked
// for, and from nothing else.
func TestDecide(t *testing.T) {
	var (
		none   *checkpoint.Record
		intent = &checkpoint.Record{Pipeline: "orders", Slot: "walpost_orders", SystemID: "7301", Phase: checkpoint.Intent}
		active = &checkpoint.Record{Pipeline: "orders", Slot: "walpost_orders", SystemID: "7301", Phase: checkpoint.Active, Confirmed: 0x16B3748, Generation: 2}
		theirs = &checkpoint.Record{Pipeline: "orders", Slot: "walpost_orders", SystemID: "9999", Phase: checkpoint.Active, Confirmed: 0x16B3748, Generation: 2}
		slot   = &replication.Slot{Name: "walpost_orders", Plugin: "pgoutput", ConfirmedFlush: 1}
		held   = &replication.Slot{Name: "walpost_orders", Active: true, HolderName: "walpost/orders", HolderPID: 42}
	)
	for name, c := range map[string]struct {
		record  *checkpoint.Record
		slot    *replication.Slot
		opts    InitOptions
		want    step
		refusal string // condition
		says    string
	}{
		"a new pipeline":                    {none, nil, InitOptions{}, makeSlot, "", ""},
		"an init that got no further":       {intent, nil, InitOptions{}, makeSlot, "", ""},
		"an init that made the slot":        {intent, slot, InitOptions{}, adoptSlot, "", ""},
		"repeated":                          {active, slot, InitOptions{}, alreadyDone, "", ""},
		"somebody's slot":                   {none, slot, InitOptions{}, 0, "checkpoint_missing", "--adopt-slot"},
		"somebody's slot, wanted":           {none, slot, InitOptions{AdoptSlot: true}, adoptSlot, "", ""},
		"another cluster's, no slot here":   {theirs, nil, InitOptions{Existing: ExistingIgnore}, 0, "wrong_cluster", `"9999", this is "7301"`},
		"another cluster's, repeated":       {theirs, slot, InitOptions{}, 0, "wrong_cluster", "--adopt-slot"},
		"another cluster's, adopted":        {theirs, slot, InitOptions{AdoptSlot: true}, adoptSlot, "", ""},
		"adopted anew":                      {active, slot, InitOptions{AdoptSlot: true}, adoptSlot, "", ""},
		"nothing to adopt":                  {none, nil, InitOptions{AdoptSlot: true}, 0, "slot_missing", "no slot"},
		"the slot is gone":                  {active, nil, InitOptions{}, 0, "slot_missing", "generation 3"},
		"the slot is gone, rows given up":   {active, nil, InitOptions{Existing: ExistingIgnore}, makeSlot, "", ""},
		"a relay is running":                {active, held, InitOptions{}, 0, "slot_busy", "pid 42"},
		"a relay is running, adopt all the": {none, held, InitOptions{AdoptSlot: true}, 0, "slot_busy", "walpost/orders"},
	} {
		t.Run(name, func(t *testing.T) {
			i := &initialisation{
				cfg:  &config.Config{Pipeline: "orders", Postgres: config.Postgres{Slot: "walpost_orders"}},
				opts: c.opts, record: c.record,
			}
			got, err := i.decide(replication.Facts{SystemID: "7301", Slot: c.slot})
			if c.refusal == "" {
				if err != nil || got != c.want {
					t.Fatalf("decide = %v, %v; want %v", got, err, c.want)
				}
				return
			}
			var refused *refused
			if !errors.As(err, &refused) || refused.Condition() != c.refusal || refused.ExitCode() != relay.ExitContinuity {
				t.Fatalf("decide = %v, want a refusal with condition %s", err, c.refusal)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
		})
	}
}

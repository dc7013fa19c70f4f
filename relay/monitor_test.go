package relay

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/walpost/walpost/replication"
)

func partition(oid uint32, attached string) replication.Partition {
	return replication.Partition{OID: oid, Name: "outbox_" + attached, Decoded: true, Attached: attached}
}

// TestMonitor: what happens to a publication while events flow, from one look to
// the next.
func TestMonitor(t *testing.T) {
	const lives = ""
	for _, c := range []struct {
		name   string
		change []func(pub *replication.Publication, table *replication.PublishedTable)
		want   string
		text   string // in the error
	}{
		{"nothing", steps(func(*replication.Publication, *replication.PublishedTable) {}), lives, ""},
		{"inserts are left out", steps(func(pub *replication.Publication, _ *replication.PublishedTable) { pub.Insert = false }), "publication_changed", "does not publish inserts"},
		{"altered and put back", steps(func(pub *replication.Publication, _ *replication.PublishedTable) { pub.Rows += "'" }), "publication_changed", "not what it was"},
		{"the table is renamed, another takes its name", steps(func(_ *replication.Publication, t *replication.PublishedTable) { t.Table, t.OID = "outbox_old", 4711 }),
			"publication_changed", "does not cover every row of table public.outbox"},
		{"another table of that name", steps(func(_ *replication.Publication, t *replication.PublishedTable) { t.OID++ }), "publication_changed", "not what it was"},
		{"partitions come and go", steps(
			func(_ *replication.Publication, t *replication.PublishedTable) {
				t.Partitions = []replication.Partition{partition(1, "700")}
			},
			func(_ *replication.Publication, t *replication.PublishedTable) {
				t.Partitions = []replication.Partition{partition(1, "700"), partition(2, "710")}
			},
			func(_ *replication.Publication, t *replication.PublishedTable) {
				t.Partitions = []replication.Partition{partition(2, "710"), partition(3, "720")}
			},
		), lives, ""},
		{"a partition that is not logged", steps(func(_ *replication.Publication, t *replication.PublishedTable) {
			t.Partitions = []replication.Partition{{OID: 1, Name: "outbox_1"}}
		}), "publication_changed", "partition outbox_1 of table public.outbox is UNLOGGED"},
		{"a partition that was away", steps(
			func(_ *replication.Publication, t *replication.PublishedTable) {
				t.Partitions = []replication.Partition{partition(1, "700"), partition(2, "710")}
			},
			func(_ *replication.Publication, t *replication.PublishedTable) {
				t.Partitions = []replication.Partition{partition(1, "700")}
			},
			func(_ *replication.Publication, t *replication.PublishedTable) {
				t.Partitions = []replication.Partition{partition(1, "700"), partition(2, "730")}
			},
		), "publication_changed", "partition outbox_730 of table public.outbox was detached and attached again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				p := w.pipeline(t)
				l := live(p)
				source := <-w.pg.sources
				for _, change := range c.change {
					elapse(p.cfg.MonitorInterval)
					w.pg.publish(change)
				}
				elapse(p.cfg.MonitorInterval)
				if c.want == lives {
					source.fail(io.ErrUnexpectedEOF)
					if err := <-l.ended; conditionOf(err) != "" {
						t.Errorf("%v", err)
					}
					return
				}
				judge(t, <-l.ended, c.want, c.text, false)
			})
		})
	}
}

func steps(changes ...func(*replication.Publication, *replication.PublishedTable)) []func(*replication.Publication, *replication.PublishedTable) {
	return changes
}

// publish alters a copy: whoever has looked keeps what was seen.
func (p *fakePostgres) publish(change func(*replication.Publication, *replication.PublishedTable)) {
	p.set(func(p *fakePostgres) {
		pub := *p.facts.Publication
		table := pub.Tables[0]
		change(&pub, &table)
		pub.Tables = []replication.PublishedTable{table}
		p.facts.Publication = &pub
	})
}

func TestMonitorNoticesThatThePublicationIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.pipeline(t)
		l := live(p)
		<-w.pg.sources
		w.pg.set(func(p *fakePostgres) { p.facts.Publication = nil })
		elapse(p.cfg.MonitorInterval)
		judge(t, <-l.ended, "publication_missing", "", false)
	})
}

// A look that leads nowhere, or to another server, says nothing about the
// publication, and that is said once.
func TestMonitorSaysThatItIsBlind(t *testing.T) {
	for name, blind := range map[string]func(p *fakePostgres){
		"refused":        func(p *fakePostgres) { p.dialErr = away("postgres_auth_failed") },
		"another server": func(p *fakePostgres) { p.facts.Timeline, p.facts.Publication = 2, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				w := newWorld()
				p := w.pipeline(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
				l := live(p)
				<-w.pg.sources
				synctest.Wait()
				w.pg.set(blind)
				elapse((blindAfter + 2) * p.cfg.MonitorInterval)
				if err := l.stop(); err != nil {
					t.Error(err)
				}
				if n := strings.Count(log.String(), "can't be looked at"); n != 1 {
					t.Errorf("said %d times:\n%s", n, &log)
				}
			})
		})
	}
}

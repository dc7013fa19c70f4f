package pgoutput

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// message builds protocol messages the way the documentation lays them out.
type message []byte

func (m message) u8(v byte) message         { return append(m, v) }
func (m message) u16(v uint16) message      { return binary.BigEndian.AppendUint16(m, v) }
func (m message) u32(v uint32) message      { return binary.BigEndian.AppendUint32(m, v) }
func (m message) u64(v uint64) message      { return binary.BigEndian.AppendUint64(m, v) }
func (m message) str(v string) message      { return append(append(m, v...), 0) }
func (m message) text(v string) message     { return append(m.u8('t').u32(uint32(len(v))), v...) }
func begin(lsn, us uint64, x uint32) []byte { return message{'B'}.u64(lsn).u64(us).u32(x) }

func TestDecodeBeginAndCommit(t *testing.T) {
	b, err := DecodeBegin(begin(0x16B3748, 817_948_800_000_001, 742))
	want := Begin{CommitLSN: 0x16B3748, Time: time.Date(2025, 12, 2, 0, 0, 0, 1000, time.UTC), XID: 742}
	if err != nil || !b.Time.Equal(want.Time) || b.CommitLSN != want.CommitLSN || b.XID != want.XID {
		t.Fatalf("DecodeBegin = %+v, %v; want %+v", b, err, want)
	}
	c, err := DecodeCommit(message{'C'}.u8(0).u64(0x10).u64(0x40).u64(0))
	if err != nil || c.CommitLSN != 0x10 || c.EndLSN != 0x40 || !c.Time.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Fatalf("DecodeCommit = %+v, %v", c, err)
	}
}

func TestDecodeRelation(t *testing.T) {
	msg := message{'R'}.u32(16384).str("public").str("outbox").u8('d').u16(2).
		u8(1).str("id").u32(2950).u32(0xffffffff).
		u8(0).str("payload").u32(3802).u32(0xffffffff)
	got, err := DecodeRelation(msg)
	if err != nil {
		t.Fatal(err)
	}
	want := Relation{OID: 16384, Schema: "public", Table: "outbox", ReplicaIdentity: 'd', Columns: []Column{
		{Key: true, Name: "id", TypeOID: 2950, TypeMod: -1}, {Name: "payload", TypeOID: 3802, TypeMod: -1},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestAppendInsert(t *testing.T) {
	msg := message{'I'}.u32(7).u8('N').u16(4).text("a").u8('n').text("").text("äß")
	oid, err := InsertOID(msg)
	if err != nil || oid != 7 {
		t.Fatalf("InsertOID = %d, %v", oid, err)
	}
	before := [][]byte{[]byte("kept")}
	got, err := AppendInsert(before, msg)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([][]byte{[]byte("kept"), []byte("a"), nil, {}, []byte("äß")}, got); d != "" {
		t.Fatal(d)
	}
	if got[3] == nil {
		t.Fatal("an empty value must not be NULL")
	}
}

func TestMalformed(t *testing.T) {
	whole := message{'I'}.u32(7).u8('N').u16(2).text("abc").u8('n')
	for n := range whole {
		if _, err := AppendInsert(nil, whole[:n]); err == nil {
			t.Errorf("AppendInsert accepted the first %d of %d bytes", n, len(whole))
		}
	}
	for _, bad := range []message{
		append(message(nil), append(whole, 0)...),
		message{'I'}.u32(7).u8('O').u16(0),
		message{'I'}.u32(7).u8('N').u16(1).u8('x'),
		message{'I'}.u32(7).u8('N').u16(1).u8('t').u32(0xffffffff),
	} {
		if _, err := AppendInsert(nil, bad); err == nil {
			t.Errorf("AppendInsert accepted %q", bad)
		}
	}
	if _, err := AppendInsert(nil, message{'I'}.u32(7).u8('N').u16(1).u8('u')); !errors.Is(err, ErrUnchangedTOAST) {
		t.Errorf("unchanged TOAST: %v", err)
	}
	if _, err := DecodeBegin(message{'C'}); err == nil {
		t.Error("DecodeBegin accepted a Commit")
	}
	if _, err := DecodeRelation(message{'R'}.u32(1).str("s").str("t").u8('d').u16(65535)); err == nil {
		t.Error("DecodeRelation accepted columns that are not there")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(message{'I'}.u32(7).u8('N').u16(2).text("abc").u8('n')))
	f.Add(begin(1, 2, 3))
	f.Add([]byte(message{'R'}.u32(1).str("s").str("t").u8('d').u16(1).u8(0).str("c").u32(25).u32(0)))
	f.Add([]byte(message{'C'}.u8(0).u64(1).u64(2).u64(3)))
	f.Fuzz(func(t *testing.T, msg []byte) {
		_, _ = DecodeBegin(msg)
		_, _ = DecodeCommit(msg)
		_, _ = DecodeRelation(msg)
		_, _ = InsertOID(msg)
		values, err := AppendInsert(nil, msg)
		size := 0
		for _, v := range values {
			size += len(v)
		}
		if err == nil && size > len(msg) {
			t.Fatalf("%d bytes of values from %d bytes of message", size, len(msg))
		}
	})
}

func BenchmarkAppendInsert(b *testing.B) {
	msg := message{'I'}.u32(7).u8('N').u16(5).text("0b5a9c2e-0000-4000-8000-000000000000").
		text("order").text("k42").text("OrderCreated").text(string(make([]byte, 300)))
	values := make([][]byte, 0, 5)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if values, err = AppendInsert(values[:0], msg); err != nil {
			b.Fatal(err)
		}
	}
}

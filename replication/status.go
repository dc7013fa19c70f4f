package replication

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// answer replies to a server that asked for it: at once, unless it was told
// the same a moment ago. A server that shuts down asks again upon every reply
// until all is confirmed, and would keep both ends busy with nothing else.
func (s *Stream) answer() error {
	if again := s.toldAt.Add(answerPause); s.confirmed.Load() == s.told && time.Now().Before(again) {
		if again.Before(s.statusDue) {
			s.statusDue = again
		}
		return nil
	}
	return s.sendStatus(false)
}

// sendStatus sends a standby status update. All three positions are the
// confirmed one: the server takes the second for confirmation, and what is
// written or applied here is nothing it needs to know apart.
func (s *Stream) sendStatus(wantReply bool) error {
	now := time.Now()
	s.statusDue = now.Add(s.cfg.StatusInterval)
	lsn := s.confirmed.Load()
	s.told, s.toldAt = lsn, now
	b := s.statusBuf[:0]
	b = append(b, 'd')
	b = binary.BigEndian.AppendUint32(b, statusFrame-1)
	b = append(b, 'r')
	for range 3 {
		b = binary.BigEndian.AppendUint64(b, lsn)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(now.UnixMicro()-946_684_800_000_000)) //nolint:gosec // since 2000
	if wantReply {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return s.write(b)
}

func (s *Stream) write(b []byte) error {
	conn := s.pg.Conn()
	if err := conn.SetWriteDeadline(time.Now().Add(s.cfg.SenderTimeout)); err != nil {
		return err
	}
	_, err := conn.Write(b)
	return err
}

// leave ends the session in good order: last confirmation, farewell, and then
// reading until the server closes, which it does after releasing the slot.
func (s *Stream) leave() {
	conn := s.pg.Conn()
	s.cfg.SenderTimeout = min(s.cfg.SenderTimeout, closeTimeout) // it bounds writes
	if s.sendStatus(false) != nil {
		return
	}
	terminate, err := (&pgproto3.Terminate{}).Encode(nil)
	if err != nil || s.write(terminate) != nil {
		return
	}
	drain(conn, time.Now().Add(closeTimeout))
}

// drain reads until the other end closes or time is up. Whoever still calls
// Confirm or Close interrupts reads: that must not end it.
func drain(conn net.Conn, until time.Time) {
	var scrap [4096]byte
	for {
		_ = conn.SetReadDeadline(until)
		_, err := conn.Read(scrap[:])
		interrupted := errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(until)
		if err != nil && !interrupted {
			return
		}
	}
}

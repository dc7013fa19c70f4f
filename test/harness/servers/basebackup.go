package servers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// standbyBackup is a data directory, as a tar, with which a server begins as a
// standby of the one at addr. It is taken here because the binaries that the
// tests download have no pg_basebackup. It has no WAL: a slot must keep that.
func standbyBackup(ctx context.Context, addr string) ([]byte, error) {
	backup, err := baseBackup(ctx, addr)
	if err == nil {
		backup, err = asStandby(backup)
	}
	if err != nil {
		return nil, fmt.Errorf("base backup of %s: %w", addr, err)
	}
	return backup, nil
}

// baseBackup asks for the backup by the replication protocol, in its form since
// Postgres 15 (https://www.postgresql.org/docs/current/protocol-replication.html).
func baseBackup(ctx context.Context, addr string) (backup []byte, err error) {
	// pg_hba.conf of the public image lets in a walsender of a database only.
	conn, err := pgconn.Connect(ctx, PostgresURL(addr, "postgres")+"&replication=database")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := pglogrepl.StartBaseBackup(ctx, conn, pglogrepl.BaseBackupOptions{Label: "standby", Fast: true}); err != nil {
		return nil, err
	}
	if err := pglogrepl.NextTableSpace(ctx, conn); err != nil {
		return nil, err
	}
	if backup, err = copyOut(ctx, conn); err != nil {
		return nil, err
	}
	_, err = pglogrepl.FinishBaseBackup(ctx, conn)
	return backup, err
}

// copyOut collects the archive: a message of it begins with d, one that names
// it with n, one of its manifest with m.
func copyOut(ctx context.Context, conn *pgconn.PgConn) ([]byte, error) {
	var archive bytes.Buffer
	for {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return nil, err
		}
		switch m := message.(type) {
		case *pgproto3.CopyData:
			if len(m.Data) > 0 && m.Data[0] == 'd' {
				archive.Write(m.Data[1:])
			}
		case *pgproto3.CopyDone:
			return archive.Bytes(), nil
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		}
	}
}

// asStandby adds the file that makes a server begin as one.
func asStandby(backup []byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for r := tar.NewReader(bytes.NewReader(backup)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.Copy(w, r); err != nil { //nolint:gosec // our own server's
			return nil, err
		}
	}
	err := w.WriteHeader(&tar.Header{Name: "standby.signal", Mode: 0o600, Typeflag: tar.TypeReg})
	return out.Bytes(), errors.Join(err, w.Close())
}

#!/bin/bash
# SPDX-License-Identifier: MIT
# map-sqlite.sh BUILD ENGINE - sqlite3 over a database that is served, by mappings and by reads, and which it cannot change.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/served.sh"
path=$dir/data.db
sqlite3 "$path" "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB);
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
	INSERT INTO t SELECT i, 'row ' || (i * 7919 % 60000), randomblob(200) FROM n;
	CREATE INDEX by_name ON t (name);"

for size in 0 1000000000; do
	questions="PRAGMA mmap_size = $size; PRAGMA integrity_check; SELECT count(*), sum(length(data)) FROM t;
		SELECT id, hex(data) FROM t WHERE name IN ('row 77', 'row 59999'); SELECT name FROM t ORDER BY name DESC LIMIT 50;"
	sqlite3 "$path" "$questions" >"$dir/real"
	mv "$path" "$dir/store"
	served "$dir/store" "$path" sqlite3 "$path" "$questions" >"$dir/served"
	cmp "$dir/real" "$dir/served"
	[ "$(faults)" -gt 0 ]
	if served "$dir/store" "$path" sqlite3 "$path" "DELETE FROM t;" 2>"$dir/error"; then
		echo "map-sqlite: what is served was changed" >&2
		exit 1
	fi
	mv "$dir/store" "$path"
done

# The image runs this once, when it makes the data of a new primary. From its start on, commits wait for the standby.
echo 'host replication all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
psql --no-psqlrc --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" \
    --command="ALTER SYSTEM SET synchronous_standby_names = '*'"

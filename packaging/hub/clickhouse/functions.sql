CREATE FUNCTION makeset AS (value) -> groupUniqArray(value);
CREATE FUNCTION extractjson AS (path, source, type) -> CAST(
    multiIf(
        type LIKE 'DateTime%', toString(parseDateTime64BestEffortOrNull(JSON_VALUE(source, path), 7, 'UTC')),
        type = 'String', JSON_VALUE(source, path),
        toString(toInt64OrNull(JSON_VALUE(source, path)))),
    if(type = 'String', 'String', concat('Nullable(', type, ')')));

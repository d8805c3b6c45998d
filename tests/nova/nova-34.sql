-- Tables of a cell's database, made by Nova for python -m tests.nova.make_file.
CREATE TYPE public.instances0locked_by AS ENUM ('admin', 'owner');
CREATE TYPE public.keypair_types AS ENUM ('x509', 'ssh');
CREATE TYPE public.migration_type AS ENUM ('evacuation', 'live-migration', 'resize', 'migration');
CREATE TYPE public.shadow_instances0locked_by AS ENUM ('admin', 'owner');
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.compute_nodes (
    created_at timestamp without time zone,
    updated_at timestamp without time zone,
    deleted_at timestamp without time zone,
    id integer NOT NULL,
    service_id integer,
    vcpus integer NOT NULL,
    memory_mb integer NOT NULL,
    local_gb integer NOT NULL,
    vcpus_used integer NOT NULL,
    memory_mb_used integer NOT NULL,
    local_gb_used integer NOT NULL,
    hypervisor_type text NOT NULL,
    hypervisor_version integer NOT NULL,
    cpu_info text NOT NULL,
    disk_available_least integer,
    free_ram_mb integer,
    free_disk_gb integer,
    current_workload integer,
    running_vms integer,
    hypervisor_hostname character varying(255),
    deleted integer,
    host_ip inet,
    supported_instances text,
    pci_stats text,
    metrics text,
    extra_resources text,
    stats text,
    numa_topology text,
    host character varying(255),
    ram_allocation_ratio double precision,
    cpu_allocation_ratio double precision,
    uuid character varying(36),
    disk_allocation_ratio double precision,
    mapped integer
);
CREATE SEQUENCE public.compute_nodes_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.compute_nodes_id_seq OWNED BY public.compute_nodes.id;
CREATE TABLE public.instance_extra (
    created_at timestamp without time zone,
    updated_at timestamp without time zone,
    deleted_at timestamp without time zone,
    deleted integer,
    id integer NOT NULL,
    instance_uuid character varying(36) NOT NULL,
    numa_topology text,
    pci_requests text,
    flavor text,
    vcpu_model text,
    migration_context text,
    keypairs text,
    device_metadata text,
    trusted_certs text,
    vpmems text,
    resources text
);
CREATE SEQUENCE public.instance_extra_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.instance_extra_id_seq OWNED BY public.instance_extra.id;
CREATE TABLE public.instances (
    created_at timestamp without time zone,
    updated_at timestamp without time zone,
    deleted_at timestamp without time zone,
    id integer NOT NULL,
    internal_id integer,
    user_id character varying(255),
    project_id character varying(255),
    image_ref character varying(255),
    kernel_id character varying(255),
    ramdisk_id character varying(255),
    launch_index integer,
    key_name character varying(255),
    key_data text,
    power_state integer,
    vm_state character varying(255),
    memory_mb integer,
    vcpus integer,
    hostname character varying(255),
    host character varying(255),
    user_data text,
    reservation_id character varying(255),
    launched_at timestamp without time zone,
    terminated_at timestamp without time zone,
    display_name character varying(255),
    display_description character varying(255),
    availability_zone character varying(255),
    locked boolean,
    os_type character varying(255),
    launched_on text,
    instance_type_id integer,
    vm_mode character varying(255),
    uuid character varying(36) NOT NULL,
    architecture character varying(255),
    root_device_name character varying(255),
    access_ip_v4 inet,
    access_ip_v6 inet,
    config_drive character varying(255),
    task_state character varying(255),
    default_ephemeral_device character varying(255),
    default_swap_device character varying(255),
    progress integer,
    auto_disk_config boolean,
    shutdown_terminate boolean,
    disable_terminate boolean,
    root_gb integer,
    ephemeral_gb integer,
    cell_name character varying(255),
    node character varying(255),
    deleted integer,
    locked_by public.instances0locked_by,
    cleaned integer,
    ephemeral_key_uuid character varying(36),
    hidden boolean,
    compute_id bigint
);
CREATE SEQUENCE public.instances_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.instances_id_seq OWNED BY public.instances.id;
CREATE TABLE public.pci_devices (
    created_at timestamp without time zone,
    updated_at timestamp without time zone,
    deleted_at timestamp without time zone,
    deleted integer,
    id integer NOT NULL,
    compute_node_id integer NOT NULL,
    address character varying(12) NOT NULL,
    product_id character varying(4) NOT NULL,
    vendor_id character varying(4) NOT NULL,
    dev_type character varying(8) NOT NULL,
    dev_id character varying(255),
    label character varying(255) NOT NULL,
    status character varying(36) NOT NULL,
    extra_info text,
    instance_uuid character varying(36),
    request_id character varying(36),
    numa_node integer,
    parent_addr character varying(12),
    uuid character varying(36)
);
CREATE SEQUENCE public.pci_devices_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.pci_devices_id_seq OWNED BY public.pci_devices.id;
ALTER TABLE ONLY public.compute_nodes ALTER COLUMN id SET DEFAULT nextval('public.compute_nodes_id_seq'::regclass);
ALTER TABLE ONLY public.instance_extra ALTER COLUMN id SET DEFAULT nextval('public.instance_extra_id_seq'::regclass);
ALTER TABLE ONLY public.instances ALTER COLUMN id SET DEFAULT nextval('public.instances_id_seq'::regclass);
ALTER TABLE ONLY public.pci_devices ALTER COLUMN id SET DEFAULT nextval('public.pci_devices_id_seq'::regclass);
INSERT INTO public.compute_nodes VALUES
	('2026-11-28 20:51:55.643527', '2026-11-28 20:51:55.653388', NULL, 1, NULL, 64, 64, 64, 0, 0, 0, 'QEMU', 8000000, '', NULL, NULL, NULL, NULL, NULL, 'node-1.cell.example', 0, NULL, NULL, NULL, NULL, NULL, '{}', NULL, 'node-1', 1, 4, '9b3b6618-0449-5cf4-ba1a-1bd2727132bc', 1, 0),
	('2026-11-28 20:51:55.935284', '2026-11-28 20:51:55.93784', NULL, 2, NULL, 64, 64, 64, 0, 0, 0, 'QEMU', 8000000, '', NULL, NULL, NULL, NULL, NULL, 'node-2.cell.example', 0, NULL, NULL, NULL, NULL, NULL, '{}', NULL, 'node-2', 1, 4, '5dbbf756-2249-5cb9-b9b4-259ca353b226', 1, 0),
	('2026-11-28 20:51:55.992424', '2026-11-28 20:51:55.995257', NULL, 3, NULL, 64, 64, 64, 0, 0, 0, 'QEMU', 8000000, '', NULL, NULL, NULL, NULL, NULL, 'node-3.cell.example', 0, NULL, NULL, NULL, NULL, NULL, '{}', NULL, 'node-3', 1, 4, '0640f3b8-6d9e-5272-9f38-4367db13bdfa', 1, 0),
	('2026-11-28 20:51:56.121352', '2026-11-28 20:51:56.125258', NULL, 4, NULL, 64, 64, 64, 0, 0, 0, 'QEMU', 8000000, '', NULL, NULL, NULL, NULL, NULL, 'node-4.cell.example', 0, NULL, NULL, NULL, NULL, NULL, '{}', NULL, 'node-4', 1, 4, '96333170-7ef4-5de5-a3f8-407858e19d51', 1, 0),
	('2026-11-28 20:51:56.187462', '2026-11-28 20:51:56.189984', '2026-11-28 20:51:56.250262', 5, NULL, 64, 64, 64, 0, 0, 0, 'QEMU', 8000000, '', NULL, NULL, NULL, NULL, NULL, 'node-5.cell.example', 5, NULL, NULL, NULL, NULL, NULL, '{}', NULL, 'node-5', 1, 4, '40261c14-7f54-5063-8cf4-91d70a3075d1', 1, 0);
INSERT INTO public.instance_extra VALUES
	('2026-11-28 20:51:55.768543', NULL, NULL, 0, 1, '294d61e3-72ba-5630-82b2-2b4cd23603a0', NULL, '[{"count": 2, "spec": [{"vendor_id": "8086", "product_id": "154c", "dev_type": "type-VF"}], "alias_name": "nic-vf", "is_new": false, "numa_policy": "legacy", "request_id": "30a25572-3ae1-57e5-80a6-261159322df3", "requester_id": null}]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('2026-11-28 20:51:55.878342', NULL, NULL, 0, 2, '077d5c3d-ac44-542c-939e-d95705745269', NULL, '[{"count": 1, "spec": [{"physical_network": "physnet1", "remote_managed": "False", "dev_type": "type-VF"}], "alias_name": null, "is_new": false, "numa_policy": "legacy", "request_id": "145d7128-b8c4-5611-ac4a-5cd279889412", "requester_id": null}]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('2026-11-28 20:51:55.901067', NULL, NULL, 0, 3, '564cb51e-4b04-536b-8e50-e8a9e3683aed', NULL, '[{"count": 1, "spec": [{"vendor_id": "8086", "product_id": "1572", "dev_type": "type-PF"}], "alias_name": "nic-pf", "is_new": false, "numa_policy": "legacy", "request_id": "b682c544-f563-594a-a5d0-325d0acc8bfa", "requester_id": null}]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('2026-11-28 20:51:55.926388', NULL, NULL, 0, 4, 'f267d2be-f59e-5b74-853b-938e5aae0735', NULL, '[{"count": 1, "spec": [{"vendor_id": "10de", "product_id": "20b5", "dev_type": "type-PCI"}], "alias_name": "gpu", "is_new": false, "numa_policy": "legacy", "request_id": "0ba283d8-db66-56a8-8195-b5cee69dbcc8", "requester_id": null}]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('2026-11-28 20:51:55.980468', NULL, NULL, 0, 5, '48d32c28-c029-58c1-a5d2-dc189146d88a', NULL, '[{"count": 1, "spec": [{"vendor_id": "8086", "product_id": "154c", "dev_type": "type-VF"}], "alias_name": "nic-vf", "is_new": false, "numa_policy": "legacy", "request_id": "53543f41-13b5-5cc9-a0fd-584e6e0fdbc0", "requester_id": null}, {"count": 1, "spec": [{"physical_network": "physnet1", "remote_managed": "False"}], "alias_name": null, "is_new": false, "numa_policy": "legacy", "request_id": "add3e729-e2d6-54df-a0b2-023dbf73cde0", "requester_id": null}]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('2026-11-28 20:51:56.055431', NULL, NULL, 0, 6, '94f1b7a4-fa07-5541-9c04-9613594a53b4', NULL, '[{"count": 1, "spec": [{"vendor_id": "8086", "product_id": "154c", "dev_type": "type-VF"}], "alias_name": "nic-vf", "is_new": false, "numa_policy": "legacy", "request_id": "f652fb4c-86e2-5018-bc65-c29accec8b16", "requester_id": null}]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('2026-11-28 20:51:56.072099', NULL, NULL, 0, 7, '20bc2e19-be97-5847-adb5-6b494e170826', NULL, '[{"count": 1, "spec": [{"vendor_id": "10de", "product_id": "20b5", "dev_type": "type-PCI"}], "alias_name": "gpu", "is_new": false, "numa_policy": "legacy", "request_id": "05f619ce-53ef-5c90-9628-9e9dd9c72cda", "requester_id": null}]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('2026-11-28 20:51:56.086887', NULL, NULL, 0, 8, '10254f02-058e-529a-b26e-cb64bcb69278', NULL, '[{"count": 1, "spec": [{"vendor_id": "8086", "product_id": "1572", "dev_type": "type-PF"}], "alias_name": "nic-pf", "is_new": false, "numa_policy": "legacy", "request_id": "a947fe0b-b618-55d6-91ad-d8ba5a959473", "requester_id": null}]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.instances VALUES
	('2026-11-28 20:51:55.760794', NULL, NULL, 1, NULL, 'user', 'project', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'active', NULL, NULL, NULL, 'node-1', NULL, NULL, NULL, NULL, 'web', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '294d61e3-72ba-5630-82b2-2b4cd23603a0', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, 'node-1.cell.example', 0, NULL, 0, NULL, false, 1),
	('2026-11-28 20:51:55.876423', NULL, NULL, 2, NULL, 'user', 'project', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'active', NULL, NULL, NULL, 'node-1', NULL, NULL, NULL, NULL, 'port', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '077d5c3d-ac44-542c-939e-d95705745269', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, 'node-1.cell.example', 0, NULL, 0, NULL, false, 1),
	('2026-11-28 20:51:55.899321', NULL, NULL, 3, NULL, 'user', 'project', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'active', NULL, NULL, NULL, 'node-1', NULL, NULL, NULL, NULL, 'whole', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '564cb51e-4b04-536b-8e50-e8a9e3683aed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, 'node-1.cell.example', 0, NULL, 0, NULL, false, 1),
	('2026-11-28 20:51:55.924787', NULL, NULL, 4, NULL, 'user', 'project', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'active', NULL, NULL, NULL, 'node-1', NULL, NULL, NULL, NULL, 'starting', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'f267d2be-f59e-5b74-853b-938e5aae0735', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, 'node-1.cell.example', 0, NULL, 0, NULL, false, 1),
	('2026-11-28 20:51:55.979045', NULL, NULL, 5, NULL, 'user', 'project', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'active', NULL, NULL, NULL, 'node-2', NULL, NULL, NULL, NULL, 'mixed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '48d32c28-c029-58c1-a5d2-dc189146d88a', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, 'node-2.cell.example', 0, NULL, 0, NULL, false, 2),
	('2026-11-28 20:51:56.053961', NULL, NULL, 6, NULL, 'user', 'project', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'active', NULL, NULL, NULL, 'node-3', NULL, NULL, NULL, NULL, 'vf-of-both', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '94f1b7a4-fa07-5541-9c04-9613594a53b4', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, 'node-3.cell.example', 0, NULL, 0, NULL, false, 3),
	('2026-11-28 20:51:56.07058', NULL, NULL, 7, NULL, 'user', 'project', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'active', NULL, NULL, NULL, 'node-3', NULL, NULL, NULL, NULL, 'pf-of-both', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '20bc2e19-be97-5847-adb5-6b494e170826', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, 'node-3.cell.example', 0, NULL, 0, NULL, false, 3),
	('2026-11-28 20:51:56.085068', NULL, NULL, 8, NULL, 'user', 'project', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'active', NULL, NULL, NULL, 'node-3', NULL, NULL, NULL, NULL, 'unknown-request', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '10254f02-058e-529a-b26e-cb64bcb69278', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, NULL, 'node-3.cell.example', 0, NULL, 0, NULL, false, 3);
INSERT INTO public.pci_devices VALUES
	('2026-11-28 20:51:55.681548', NULL, NULL, 0, 2, 1, '0000:01:10.0', '154c', '8086', 'type-VF', 'pci_0000:01:10.0', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', '25e354e3-e2f7-4339-891e-bc9c3d75e0c3'),
	('2026-11-28 20:51:55.696092', '2026-11-28 20:51:55.862663', NULL, 0, 4, 1, '0000:01:10.4', '154c', '8086', 'type-VF', 'pci_0000:01:10.4', 'label_8086_154c', 'allocated', '{}', '294d61e3-72ba-5630-82b2-2b4cd23603a0', '30a25572-3ae1-57e5-80a6-261159322df3', 0, '0000:01:00.0', 'a955c0cf-4e44-426f-9469-34d54db96adb'),
	('2026-11-28 20:51:55.702866', '2026-11-28 20:51:55.867374', NULL, 0, 5, 1, '0000:01:10.6', '154c', '8086', 'type-VF', 'pci_0000:01:10.6', 'label_8086_154c', 'allocated', '{}', '294d61e3-72ba-5630-82b2-2b4cd23603a0', '30a25572-3ae1-57e5-80a6-261159322df3', 0, '0000:01:00.0', '7a718d2c-670c-46d1-8328-619f32834aa4'),
	('2026-11-28 20:51:55.67144', '2026-11-28 20:51:55.886421', NULL, 0, 1, 1, '0000:01:00.0', '1572', '8086', 'type-PF', 'pci_0000:01:00.0', 'label_8086_1572', 'unavailable', '{}', NULL, NULL, 0, NULL, 'ad993b34-b789-4816-af08-8790ab1c8122'),
	('2026-11-28 20:51:55.688189', '2026-11-28 20:51:55.890656', NULL, 0, 3, 1, '0000:01:10.2', '154c', '8086', 'type-VF', 'pci_0000:01:10.2', 'label_8086_154c', 'allocated', '{}', '077d5c3d-ac44-542c-939e-d95705745269', '145d7128-b8c4-5611-ac4a-5cd279889412', 0, '0000:01:00.0', 'c15c19cb-3eaa-49c8-92f5-c44801cffbbf'),
	('2026-11-28 20:51:55.709822', '2026-11-28 20:51:55.907917', NULL, 0, 6, 1, '0000:02:00.0', '1572', '8086', 'type-PF', 'pci_0000:02:00.0', 'label_8086_1572', 'allocated', '{}', '564cb51e-4b04-536b-8e50-e8a9e3683aed', 'b682c544-f563-594a-a5d0-325d0acc8bfa', 0, NULL, 'edc3f34a-682b-48c8-a49d-02b5bbeb1669'),
	('2026-11-28 20:51:55.71679', '2026-11-28 20:51:55.91107', NULL, 0, 7, 1, '0000:02:10.0', '154c', '8086', 'type-VF', 'pci_0000:02:10.0', 'label_8086_154c', 'unavailable', '{}', NULL, NULL, 0, '0000:02:00.0', '59a68765-b404-4037-83fe-081e5c06af8b'),
	('2026-11-28 20:51:55.722211', '2026-11-28 20:51:55.913999', NULL, 0, 8, 1, '0000:02:10.2', '154c', '8086', 'type-VF', 'pci_0000:02:10.2', 'label_8086_154c', 'unavailable', '{}', NULL, NULL, 0, '0000:02:00.0', 'bb226a67-02f8-464b-8126-57b8540bd640'),
	('2026-11-28 20:51:55.730375', '2026-11-28 20:51:55.916784', NULL, 0, 9, 1, '0000:02:10.4', '154c', '8086', 'type-VF', 'pci_0000:02:10.4', 'label_8086_154c', 'unavailable', '{}', NULL, NULL, 0, '0000:02:00.0', '36182387-b964-44a0-9aff-2991ddd982c3'),
	('2026-11-28 20:51:55.735906', '2026-11-28 20:51:55.919424', NULL, 0, 10, 1, '0000:02:10.6', '154c', '8086', 'type-VF', 'pci_0000:02:10.6', 'label_8086_154c', 'unavailable', '{}', NULL, NULL, 0, '0000:02:00.0', '306595ab-eb44-4659-b5ff-2a43976c9a97'),
	('2026-11-28 20:51:55.741531', '2026-11-28 20:51:55.932479', NULL, 0, 11, 1, '0000:03:00.0', '20b5', '10de', 'type-PCI', 'pci_0000:03:00.0', 'label_10de_20b5', 'claimed', '{}', 'f267d2be-f59e-5b74-853b-938e5aae0735', '0ba283d8-db66-56a8-8195-b5cee69dbcc8', 0, NULL, '079829d6-a6e2-4451-ae4f-419712298be9'),
	('2026-11-28 20:51:55.94481', NULL, NULL, 0, 12, 2, '0000:01:10.0', '154c', '8086', 'type-VF', 'pci_0000:01:10.0', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', 'afc74990-8c97-422f-8c6c-dac487c03117'),
	('2026-11-28 20:51:55.94934', NULL, NULL, 0, 13, 2, '0000:01:10.2', '154c', '8086', 'type-VF', 'pci_0000:01:10.2', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', 'a066ceb6-3b44-4a31-a7b1-388953e3b83f'),
	('2026-11-28 20:51:55.961799', NULL, NULL, 0, 16, 2, '0000:02:10.0', '154c', '8086', 'type-VF', 'pci_0000:02:10.0', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', '7585c885-7aab-482f-85b5-bd936503694a'),
	('2026-11-28 20:51:55.965435', NULL, NULL, 0, 17, 2, '0000:02:10.2', '154c', '8086', 'type-VF', 'pci_0000:02:10.2', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', 'cd8e07d8-d75a-465d-96c2-20803f8c77ad'),
	('2026-11-28 20:51:55.96936', NULL, NULL, 0, 18, 2, '0000:02:10.4', '154c', '8086', 'type-VF', 'pci_0000:02:10.4', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', 'ed414927-e453-490d-9931-9cc916dd5785'),
	('2026-11-28 20:51:55.973629', NULL, NULL, 0, 19, 2, '0000:02:10.6', '154c', '8086', 'type-VF', 'pci_0000:02:10.6', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', '549e5582-b7a4-4961-86cc-0cb2859f58b0'),
	('2026-11-28 20:51:55.95361', '2026-11-28 20:51:55.986322', NULL, 0, 14, 2, '0000:01:10.4', '154c', '8086', 'type-VF', 'pci_0000:01:10.4', 'label_8086_154c', 'allocated', '{}', '48d32c28-c029-58c1-a5d2-dc189146d88a', 'add3e729-e2d6-54df-a0b2-023dbf73cde0', 0, '0000:01:00.0', 'c7808cde-d4dd-4594-b314-16989589b444'),
	('2026-11-28 20:51:55.957978', '2026-11-28 20:51:55.989434', NULL, 0, 15, 2, '0000:01:10.6', '154c', '8086', 'type-VF', 'pci_0000:01:10.6', 'label_8086_154c', 'allocated', '{}', '48d32c28-c029-58c1-a5d2-dc189146d88a', '53543f41-13b5-5cc9-a0fd-584e6e0fdbc0', 0, '0000:01:00.0', '963de0f3-56fc-4712-8f66-536bd43fd3f4'),
	('2026-11-28 20:51:56.007913', NULL, NULL, 0, 21, 3, '0000:01:10.0', '154c', '8086', 'type-VF', 'pci_0000:01:10.0', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', '0d05cedb-8f70-49d8-84f9-bab5961239ee'),
	('2026-11-28 20:51:56.012356', NULL, NULL, 0, 22, 3, '0000:01:10.2', '154c', '8086', 'type-VF', 'pci_0000:01:10.2', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', '80cb7d09-5066-491a-822b-ca0c48c1d426'),
	('2026-11-28 20:51:56.016874', NULL, NULL, 0, 23, 3, '0000:01:10.4', '154c', '8086', 'type-VF', 'pci_0000:01:10.4', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', '04dfc3cf-c1f7-47c5-99b1-4ceb079786e1'),
	('2026-11-28 20:51:56.148181', NULL, NULL, 0, 33, 4, '0000:01:10.2', '154c', '8086', 'type-VF', 'pci_0000:01:10.2', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', 'a8acf4fd-fb85-4a3f-aab9-156feea1175a'),
	('2026-11-28 20:51:56.021254', '2026-11-28 20:51:56.064833', NULL, 0, 24, 3, '0000:01:10.6', '154c', '8086', 'type-VF', 'pci_0000:01:10.6', 'label_8086_154c', 'allocated', '{}', '94f1b7a4-fa07-5541-9c04-9613594a53b4', 'f652fb4c-86e2-5018-bc65-c29accec8b16', 0, '0000:01:00.0', '46d7edad-b050-4bf1-9ce9-a29be6038af7'),
	('2026-11-28 20:51:56.047984', '2026-11-28 20:51:56.078235', NULL, 0, 30, 3, '0000:03:00.0', '20b5', '10de', 'type-PCI', 'pci_0000:03:00.0', 'label_10de_20b5', 'allocated', '{}', '20bc2e19-be97-5847-adb5-6b494e170826', '05f619ce-53ef-5c90-9628-9e9dd9c72cda', 0, NULL, '2ca5e776-9a23-4a4d-94de-e81ad900b668'),
	('2026-11-28 20:51:56.025736', '2026-11-28 20:51:56.095431', NULL, 0, 25, 3, '0000:02:00.0', '1572', '8086', 'type-PF', 'pci_0000:02:00.0', 'label_8086_1572', 'allocated', '{}', '10254f02-058e-529a-b26e-cb64bcb69278', 'd30bdc2f-f865-525a-b28e-a0355b328a5f', 0, NULL, '6a12d722-dc07-4194-acb0-6478eb21040f'),
	('2026-11-28 20:51:56.030154', '2026-11-28 20:51:56.099898', NULL, 0, 26, 3, '0000:02:10.0', '154c', '8086', 'type-VF', 'pci_0000:02:10.0', 'label_8086_154c', 'unavailable', '{}', NULL, NULL, 0, '0000:02:00.0', '46620093-b3d4-43b3-970f-f8f0afbb65b4'),
	('2026-11-28 20:51:56.034483', '2026-11-28 20:51:56.10406', NULL, 0, 27, 3, '0000:02:10.2', '154c', '8086', 'type-VF', 'pci_0000:02:10.2', 'label_8086_154c', 'unavailable', '{}', NULL, NULL, 0, '0000:02:00.0', '9774a043-234b-49ca-92b3-fe6f6d964826'),
	('2026-11-28 20:51:56.038994', '2026-11-28 20:51:56.108161', NULL, 0, 28, 3, '0000:02:10.4', '154c', '8086', 'type-VF', 'pci_0000:02:10.4', 'label_8086_154c', 'unavailable', '{}', NULL, NULL, 0, '0000:02:00.0', '414348be-1167-415f-b4e4-4a75e47eb361'),
	('2026-11-28 20:51:56.043505', '2026-11-28 20:51:56.112154', NULL, 0, 29, 3, '0000:02:10.6', '154c', '8086', 'type-VF', 'pci_0000:02:10.6', 'label_8086_154c', 'unavailable', '{}', NULL, NULL, 0, '0000:02:00.0', 'a1b24677-66cf-4484-ba64-d6b6281e233e'),
	('2026-11-28 20:51:56.002968', '2026-11-28 20:51:56.116714', NULL, 0, 20, 3, '0000:01:00.0', '1572', '8086', 'type-PF', 'pci_0000:01:00.0', 'label_8086_1572', 'allocated', '{}', '20bc2e19-be97-5847-adb5-6b494e170826', '05f619ce-53ef-5c90-9628-9e9dd9c72cda', 0, NULL, 'd57cd770-0433-45d7-b6e9-89220cbe2d35'),
	('2026-11-28 20:51:56.136773', NULL, NULL, 0, 31, 4, '0000:01:00.0', '1572', '8086', 'type-PF', 'pci_0000:01:00.0', 'label_8086_1572', 'available', '{}', NULL, NULL, 0, NULL, '7507454a-146a-48b5-8023-1fe75c00e085'),
	('2026-11-28 20:51:56.143455', NULL, NULL, 0, 32, 4, '0000:01:10.0', '154c', '8086', 'type-VF', 'pci_0000:01:10.0', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', 'ee357eba-7ed5-4d5e-b920-2931e51bc37c'),
	('2026-11-28 20:51:56.152799', NULL, NULL, 0, 34, 4, '0000:01:10.4', '154c', '8086', 'type-VF', 'pci_0000:01:10.4', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', '68b94e2f-e1b3-4f60-8ee2-effd32490237'),
	('2026-11-28 20:51:56.157311', NULL, NULL, 0, 35, 4, '0000:01:10.6', '154c', '8086', 'type-VF', 'pci_0000:01:10.6', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', 'dd8f91da-6913-469f-9fee-b7d146c41926'),
	('2026-11-28 20:51:56.161678', NULL, NULL, 0, 36, 4, '0000:02:00.0', '1572', '8086', 'type-PF', 'pci_0000:02:00.0', 'label_8086_1572', 'available', '{}', NULL, NULL, 0, NULL, '9c7e532e-eca0-4183-be39-b1540e648eed'),
	('2026-11-28 20:51:56.165965', NULL, NULL, 0, 37, 4, '0000:02:10.0', '154c', '8086', 'type-VF', 'pci_0000:02:10.0', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', '7aa4278f-6950-4d01-b7ec-a152cc9deb43'),
	('2026-11-28 20:51:56.170224', NULL, NULL, 0, 38, 4, '0000:02:10.2', '154c', '8086', 'type-VF', 'pci_0000:02:10.2', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', '8befc0b7-27fe-4cf3-aa21-bf48db43afa0'),
	('2026-11-28 20:51:56.176047', NULL, NULL, 0, 39, 4, '0000:02:10.4', '154c', '8086', 'type-VF', 'pci_0000:02:10.4', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', 'bbd2d82c-d51c-4aae-9234-bf73884909c7'),
	('2026-11-28 20:51:56.180483', NULL, NULL, 0, 40, 4, '0000:02:10.6', '154c', '8086', 'type-VF', 'pci_0000:02:10.6', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', '4d9a9798-77f0-4224-a6b1-7bd497229d69'),
	('2026-11-28 20:51:56.184795', NULL, NULL, 0, 41, 4, '0000:03:00.0', '20b5', '10de', 'type-PCI', 'pci_0000:03:00.0', 'label_10de_20b5', 'available', '{}', NULL, NULL, 0, NULL, 'ba227c5d-921b-447e-bf52-09cbd8f6ffdb'),
	('2026-11-28 20:51:56.197035', NULL, NULL, 0, 42, 5, '0000:01:00.0', '1572', '8086', 'type-PF', 'pci_0000:01:00.0', 'label_8086_1572', 'available', '{}', NULL, NULL, 0, NULL, '2e5b5db0-51c9-483d-b82f-43746e416eef'),
	('2026-11-28 20:51:56.201741', NULL, NULL, 0, 43, 5, '0000:01:10.0', '154c', '8086', 'type-VF', 'pci_0000:01:10.0', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', '1530127b-82ac-44a9-87c7-f209a9f90a7f'),
	('2026-11-28 20:51:56.207717', NULL, NULL, 0, 44, 5, '0000:01:10.2', '154c', '8086', 'type-VF', 'pci_0000:01:10.2', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', '1fb0d6b3-d226-4873-9092-e8175c812151'),
	('2026-11-28 20:51:56.212493', NULL, NULL, 0, 45, 5, '0000:01:10.4', '154c', '8086', 'type-VF', 'pci_0000:01:10.4', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', 'ac8565d1-054e-41a0-b6da-cd29aab5d81f'),
	('2026-11-28 20:51:56.217034', NULL, NULL, 0, 46, 5, '0000:01:10.6', '154c', '8086', 'type-VF', 'pci_0000:01:10.6', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:01:00.0', '7eecf74f-aee9-4774-afde-67566b0a2ba0'),
	('2026-11-28 20:51:56.221438', NULL, NULL, 0, 47, 5, '0000:02:00.0', '1572', '8086', 'type-PF', 'pci_0000:02:00.0', 'label_8086_1572', 'available', '{}', NULL, NULL, 0, NULL, 'c03677db-a614-4af9-9ad6-2aefda1525d4'),
	('2026-11-28 20:51:56.225809', NULL, NULL, 0, 48, 5, '0000:02:10.0', '154c', '8086', 'type-VF', 'pci_0000:02:10.0', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', 'aa106076-c6b7-45f3-ab98-8bb08237206e'),
	('2026-11-28 20:51:56.230265', NULL, NULL, 0, 49, 5, '0000:02:10.2', '154c', '8086', 'type-VF', 'pci_0000:02:10.2', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', '39640725-07e5-44dd-acb2-870c77eb8d47'),
	('2026-11-28 20:51:56.234851', NULL, NULL, 0, 50, 5, '0000:02:10.4', '154c', '8086', 'type-VF', 'pci_0000:02:10.4', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', '7af43f51-e205-4e9e-a173-8c1c624b6c22'),
	('2026-11-28 20:51:56.239283', NULL, NULL, 0, 51, 5, '0000:02:10.6', '154c', '8086', 'type-VF', 'pci_0000:02:10.6', 'label_8086_154c', 'available', '{}', NULL, NULL, 0, '0000:02:00.0', 'f93f0877-65ed-4d27-bbe6-84639fac715f'),
	('2026-11-28 20:51:56.243704', NULL, NULL, 0, 52, 5, '0000:03:00.0', '20b5', '10de', 'type-PCI', 'pci_0000:03:00.0', 'label_10de_20b5', 'available', '{}', NULL, NULL, 0, NULL, 'f2d8c0f7-374e-429a-a881-116884c13e71');
SELECT pg_catalog.setval('public.compute_nodes_id_seq', 5, true);
SELECT pg_catalog.setval('public.instance_extra_id_seq', 8, true);
SELECT pg_catalog.setval('public.instances_id_seq', 8, true);
SELECT pg_catalog.setval('public.pci_devices_id_seq', 52, true);
ALTER TABLE ONLY public.compute_nodes
    ADD CONSTRAINT compute_nodes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.instance_extra
    ADD CONSTRAINT instance_extra_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.instances
    ADD CONSTRAINT instances_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.pci_devices
    ADD CONSTRAINT pci_devices_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.compute_nodes
    ADD CONSTRAINT uniq_compute_nodes0host0hypervisor_hostname0deleted UNIQUE (host, hypervisor_hostname, deleted);
ALTER TABLE ONLY public.instances
    ADD CONSTRAINT uniq_instances0uuid UNIQUE (uuid);
ALTER TABLE ONLY public.pci_devices
    ADD CONSTRAINT uniq_pci_devices0compute_node_id0address0deleted UNIQUE (compute_node_id, address, deleted);
CREATE UNIQUE INDEX compute_nodes_uuid_idx ON public.compute_nodes USING btree (uuid);
CREATE INDEX instance_extra_idx ON public.instance_extra USING btree (instance_uuid);
CREATE INDEX instances_compute_id_deleted_idx ON public.instances USING btree (compute_id, deleted);
CREATE INDEX instances_deleted_created_at_idx ON public.instances USING btree (deleted, created_at);
CREATE INDEX instances_host_deleted_cleaned_idx ON public.instances USING btree (host, deleted, cleaned);
CREATE INDEX instances_host_node_deleted_idx ON public.instances USING btree (host, node, deleted);
CREATE INDEX instances_project_id_deleted_idx ON public.instances USING btree (project_id, deleted);
CREATE INDEX instances_project_id_idx ON public.instances USING btree (project_id);
CREATE INDEX instances_reservation_id_idx ON public.instances USING btree (reservation_id);
CREATE INDEX instances_task_state_updated_at_idx ON public.instances USING btree (task_state, updated_at);
CREATE INDEX instances_terminated_at_launched_at_idx ON public.instances USING btree (terminated_at, launched_at);
CREATE INDEX instances_updated_at_project_id_idx ON public.instances USING btree (updated_at, project_id);
CREATE INDEX instances_uuid_deleted_idx ON public.instances USING btree (uuid, deleted);
CREATE INDEX ix_pci_devices_compute_node_id_deleted ON public.pci_devices USING btree (compute_node_id, deleted);
CREATE INDEX ix_pci_devices_compute_node_id_parent_addr_deleted ON public.pci_devices USING btree (compute_node_id, parent_addr, deleted);
CREATE INDEX ix_pci_devices_instance_uuid_deleted ON public.pci_devices USING btree (instance_uuid, deleted);
ALTER TABLE ONLY public.instance_extra
    ADD CONSTRAINT instance_extra_instance_uuid_fkey FOREIGN KEY (instance_uuid) REFERENCES public.instances(uuid);
ALTER TABLE ONLY public.pci_devices
    ADD CONSTRAINT pci_devices_compute_node_id_fkey FOREIGN KEY (compute_node_id) REFERENCES public.compute_nodes(id);
